"""What torch.compile adds to the fast step of notebook 09: full size, batch 64, five interleaved rounds.

Run from the project's root: python notebooks/results/09_speed/full-compile/measure.py
"""

import dataclasses

from vmlite import speed
from vmlite.recipes import preset

recipe = preset("paper", batch_size=64, device="cpu", epochs=speed.MANY)
images = speed.random_images((3, 32, 32), 256)
for name in (speed.PRODUCT, f"{speed.PRODUCT} + bf16"):
    fast = speed.VARIANTS[name]
    variants = {"fast": fast, "compiled": dataclasses.replace(fast, compile=True)}
    steppers = {key: speed.stepper(recipe, images, variant) for key, variant in variants.items()}
    for step in steppers.values():
        step()
    found = speed.ratios(speed.interleaved(steppers, 5), "fast")["compiled"]
    print(f"{name}: compiled {found.median:.2f} times as fast ({found.low:.2f} to {found.high:.2f})", flush=True)
