"""vmlite: learn and use viewmaker networks. Start with notebooks/01_viewmaker.ipynb; the package is the code they share.

This module imports nothing heavy, so that `vmlite.check_environment()` can run where torch cannot.
"""

from vmlite.environment import check_environment, project_path

__version__ = "0.1.0"
__all__ = ["check_environment", "project_path"]
