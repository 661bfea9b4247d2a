"""Windows and their spectrograms a second, at the paper's size, beside torchaudio's: python .../windows/measure.py

Prints one line of JSON: medians of seven interleaved runs on batches of 256 windows of 52 channels and 10 s, cut at
random starts out of ten minutes of random numbers, on as many threads as torch takes, with memory
kept between the runs as in training.
"""

import json
import statistics
import time

import torch
import torchaudio

from vmlite.datasets.sensors import LogSpectrogram
from vmlite.hardware import keep_memory

keep_memory()
samples, starts = torch.randn(52, 60_000), torch.randint(0, 59_000, (256,))
ours, library = LogSpectrogram(1000, 32), torchaudio.transforms.Spectrogram(63, hop_length=32, power=2)
variants = {
    "windows": lambda x: x,
    "vmlite": ours,
    "torchaudio": lambda x: (library(x) + 1e-6).log(),
}
seconds: dict[str, list[float]] = {name: [] for name in variants}
for _ in range(8):
    for name, front_end in variants.items():
        began = time.perf_counter()
        front_end(samples.unfold(1, 1000, 1)[:, starts].transpose(0, 1))
        seconds[name].append(time.perf_counter() - began)
rates = {name: round(len(starts) / statistics.median(times[1:])) for name, times in seconds.items()}
print(json.dumps({"threads": torch.get_num_threads(), "per_second": rates}))
