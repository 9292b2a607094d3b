"""Encodes and decodes texts with the Rust tokenizers. Reads {"path" or "json", "texts"} from stdin, a request a line; answers a line each.

A text's answer is [ids, starts, ends, ids without special tokens, decoded, decoded with special tokens], offsets in code points; {"error"} where it fails.
"""

import json
import sys

from tokenizers import Tokenizer

for line in sys.stdin:
    request = json.loads(line)
    try:
        tokenizer = Tokenizer.from_file(request["path"]) if "path" in request else Tokenizer.from_str(request["json"])
    except Exception as error:
        print(json.dumps({"error": str(error)}), flush=True)
        continue
    tokenizer.no_truncation()
    tokenizer.no_padding()
    answers = []
    for text in request["texts"]:
        try:
            whole = tokenizer.encode(text)
            plain = tokenizer.encode(text, add_special_tokens=False)
            starts, ends = zip(*whole.offsets) if whole.offsets else ((), ())
            answers.append([whole.ids, starts, ends, plain.ids, tokenizer.decode(whole.ids), tokenizer.decode(plain.ids, skip_special_tokens=False)])
        except BaseException as error:
            answers.append({"error": str(error)})
    print(json.dumps({"answers": answers}), flush=True)
