"""Pictures for notebooks. Nothing else in the package imports this."""
