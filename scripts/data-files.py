"""Writes the data files of test/data-files: the same few rows in each layout and format, as the tools of each write them; and odd ones
of test/odd-files, in which values stand that other formats cannot hold.

python scripts/data-files.py FOLDER      needs pyarrow and zstandard
python scripts/data-files.py FOLDER odd  needs pyarrow
"""

import csv
import gzip
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

try:
    import zstandard
except ImportError:
    zstandard = None

PAIRS = [
    ("Who is Lily?", "Lily is a little girl."),
    ("What did Tim \"the cat\" say?", "He said: hello, friend.\nThen he slept."),
    ("Où est le café?", "Au coin de la rue."),
]

SYSTEM = "You answer in short sentences."


def completion():
    return [{"prompt": q + "\n", "completion": a} for q, a in PAIRS]


def text():
    return [{"text": f"{q} {a}"} for q, a in PAIRS]


def messages():
    return [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in PAIRS]


def system_messages():
    return [{"messages": [{"role": "system", "content": SYSTEM}, *row["messages"]]} for row in messages()]


def parts():
    return [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": q}]}, {"role": "assistant", "content": a, "weight": 1}]}
        for q, a in PAIRS
    ]


def conversational():
    return [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]} for q, a in PAIRS
    ]


def share_gpt():
    return [
        {"id": f"row-{i}", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for i, (q, a) in enumerate(PAIRS)
    ]


def share_gpt_system():
    return [{**row, "system": SYSTEM} for row in share_gpt()]


def alpaca():
    return [{"instruction": q, "input": "" if i else "Lily plays in the park.", "output": a} for i, (q, a) in enumerate(PAIRS)]


def alpaca_history():
    return [{"instruction": q, "input": "", "output": a, "system": SYSTEM, "history": [["Hi", "Hello"]]} for q, a in PAIRS]


def dolly():
    return [{"instruction": q, "context": "", "response": a, "category": "open_qa"} for q, a in PAIRS]


def question():
    return [{"question": q, "answer": a} for q, a in PAIRS]


def jsonl(rows, ascii_only=False):
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows).encode()


def array(rows, indent=None):
    return json.dumps(rows, ensure_ascii=False, indent=indent).encode()


def delimited(rows, **dialect):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def arrow_csv(rows):
    out = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), out)
    return out.getvalue().to_pybytes()


def parquet(rows, **options):
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue().to_pybytes()


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


def files():
    yield "completion.jsonl", jsonl(completion())
    yield "completion-ascii.jsonl", jsonl(completion(), ascii_only=True)
    yield "completion-bom.jsonl", b"\xef\xbb\xbf" + jsonl(completion())
    yield "completion-crlf.jsonl", jsonl(completion()).replace(b"\n", b"\r\n")
    yield "completion-utf16.jsonl", jsonl(completion()).decode().encode("utf-16")
    yield "completion-utf16be.jsonl", b"\xfe\xff" + jsonl(completion()).decode().encode("utf-16-be")
    yield "completion.jsonl.gz", gzip.compress(jsonl(completion()), mtime=0)
    yield "completion.jsonl.zst", zstd(jsonl(completion()))
    yield "completion.json", array(completion())
    yield "completion-indented.json", array(completion(), indent=2)
    yield "completion-lines.json", jsonl(completion())
    yield "completion.json.gz", gzip.compress(array(completion(), indent=1), mtime=0)
    yield "completion.csv", delimited(completion())
    yield "completion-quoted.csv", delimited(completion(), quoting=csv.QUOTE_ALL, lineterminator="\n")
    yield "completion-semicolon.csv", delimited(completion(), delimiter=";")
    yield "completion-bom.csv", b"\xef\xbb\xbf" + delimited(completion())
    yield "completion-arrow.csv", arrow_csv(completion())
    yield "completion.csv.gz", gzip.compress(delimited(completion()), mtime=0)
    yield "completion.tsv", delimited(completion(), delimiter="\t")
    yield "completion.parquet", parquet(completion())
    yield "completion-zstd.parquet", parquet(completion(), compression="zstd")
    yield "completion-gzip.parquet", parquet(completion(), compression="gzip")
    yield "completion-groups.parquet", parquet(completion(), row_group_size=2, compression="none", use_dictionary=False)
    yield "text.jsonl", jsonl(text())
    yield "text.csv", delimited(text())
    yield "text.parquet", parquet(text(), compression="brotli")
    yield "text.jsonl.zst", zstd(jsonl(text()))
    yield "messages.jsonl", jsonl(messages())
    yield "messages-system.jsonl", jsonl(system_messages())
    yield "messages-parts.jsonl", jsonl(parts())
    yield "messages.json", array(messages(), indent=2)
    yield "messages.parquet", parquet(messages())
    yield "messages-text.csv", delimited([{"messages": json.dumps(row["messages"])} for row in messages()])
    yield "conversational.jsonl", jsonl(conversational())
    yield "sharegpt.json", array(share_gpt(), indent=2)
    yield "sharegpt-system.jsonl", jsonl(share_gpt_system())
    yield "sharegpt.parquet", parquet(share_gpt(), compression="lz4")
    yield "alpaca.json", array(alpaca(), indent=4)
    yield "alpaca-history.json", array(alpaca_history(), indent=4)
    yield "alpaca.parquet", parquet(alpaca())
    yield "dolly.jsonl", jsonl(dolly())
    yield "question.jsonl", jsonl(question())
    yield "question.csv", delimited(question())


def odd_files():
    given = pa.struct([("x", pa.float64()), ("n", pa.int64())])
    call = pa.struct([("id", pa.int64()), ("function", pa.struct([("name", pa.string()), ("arguments", given)]))])
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(call)), ("weight", pa.float64())])
    called = {"id": 2**62 + 1, "function": {"name": "f", "arguments": {"x": 5.0, "n": 7}}}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [called], "weight": 1.0},
        {"role": "assistant", "content": "b", "weight": 0.0},
    ]
    schema = pa.schema([("messages", pa.list_(message)), ("scores", pa.map_(pa.string(), pa.float64()))])
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{"messages": turns, "scores": [("k", 3.0)]}], schema=schema), out)
    yield "numbers.parquet", out.getvalue().to_pybytes()
    texts = pa.array(["caf\u00e9".encode(), "caf\u00e9".encode("latin-1"), None], pa.binary())
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts, "image": pa.array([b"\xff\xd8"] * 3, pa.binary())}), out)
    yield "bytes.parquet", out.getvalue().to_pybytes()


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, data in odd_files() if sys.argv[2:] == ["odd"] else files():
    (folder / name).write_bytes(data)
