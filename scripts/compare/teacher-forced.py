"""What transformers predicts behind each token of a text: python teacher-forced.py FOLDER OUT < ids, a JSON list

OUT gets the log-probabilities of all tokens behind each position, f32 [positions, vocabulary]. In float32, as the folder is.
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM

folder, out = sys.argv[1:]
torch.set_num_threads(2)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
with torch.no_grad():
    logits = model(torch.tensor([json.load(sys.stdin)])).logits[0]
    torch.log_softmax(logits.double(), -1).float().numpy().astype("<f4").tofile(out)
