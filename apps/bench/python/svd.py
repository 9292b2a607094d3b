"""Processor seconds of torch.linalg.svd in float32 on one thread, for each shape ROWSxCOLUMNS that is named: the median of three, as a JSON list."""

import json
import statistics
import sys
import time

import torch

torch.set_num_threads(1)
torch.manual_seed(1)


def seconds(rows: int, columns: int) -> float:
    matrix = torch.rand(rows, columns) * 2 - 1
    times = []
    for _ in range(4):
        start = time.process_time()
        torch.linalg.svd(matrix, full_matrices=False)
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


print(json.dumps([seconds(*map(int, shape.split("x"))) for shape in sys.argv[1:]]))
