"""Writes packages/models/src/tokenizer/unicode/tables.ts: what the pinned Rust tokenizers knows of Unicode, asked of itself code point by code point."""

import base64
import json
import struct
import sys

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, POINTS))
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()
SCRIPTS = "Han Hiragana Katakana Hangul Latin Cyrillic Greek Arabic Hebrew Thai Devanagari Bengali Tamil Telugu Armenian Georgian Khmer Lao Myanmar Tibetan Bopomofo Common Inherited".split()


def base36(n):
    digits = ""
    while True:
        n, rest = divmod(n, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
        if n == 0:
            return digits


def ranges(members):
    """Borders of a set of code points as distances."""
    borders = []
    for c in sorted(members):
        if borders and borders[-1] == c:
            borders[-1] = c + 1
        else:
            borders += [c, c + 1]
    return ",".join(base36(b - a) for a, b in zip([0] + borders, borders))


def removed(pre_tokenizer):
    """The code points that a pre-tokenizer leaves out of a text of all of them."""
    kept = set()
    for _, (start, end) in pre_tokenizer.pre_tokenize_str(TEXT):
        kept.update(range(start, end))
    return {c for i, c in enumerate(POINTS) if i not in kept}


def onig(pattern):
    return removed(pre_tokenizers.Split(Regex(pattern), "removed"))


def changed(normalizer):
    """What a normalizer makes of single code points, where that is another text."""
    out = {}
    for c in POINTS:
        text = normalizer.normalize_str(chr(c))
        if text != chr(c):
            out[c] = text
    return out


def charsmap(source, target):
    """A compiled map of one text to another, as SentencePiece has it: a double array, then the texts."""
    units = [0] * (256 * (len(source) + 3))
    position, base = 0, 256
    units[0] = (position ^ base) << 10
    position = base
    for i, byte in enumerate(source):
        place = position ^ byte
        base += 256
        units[place] = byte | ((place ^ base) << 10) | (0x100 if i == len(source) - 1 else 0)
        position = base
    units[position] = 0x80000000
    blob = struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + target + b"\0"
    return normalizers.Precompiled(blob)


HANGUL = range(0xAC00, 0xAC00 + 11172)
tables = {}

for name in CATEGORIES:
    tables[name] = ranges(onig(r"\p{%s}" % name)) if name != "Cs" else ""
tables["scripts"] = {name: ranges(onig(r"\p{%s}" % name)) for name in SCRIPTS}
tables["onig"] = {name: ranges(onig(pattern)) for name, pattern in {"space": r"\s", "digit": r"\d", "word": r"\w"}.items()}

white = {c for c in POINTS if not pre_tokenizers.Whitespace().pre_tokenize_str(chr(c))}
tables["regexSpace"] = ranges(white)
tables["regexWord"] = ranges({c for c in POINTS if len(pre_tokenizers.Whitespace().pre_tokenize_str("a" + chr(c))) == 1 and c not in white})
tables["whiteSpace"] = ranges(removed(pre_tokenizers.WhitespaceSplit()))
tables["numeric"] = ranges({c for c in POINTS if len(pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str("a" + chr(c))) == 2})
tables["punctuation"] = ranges(removed(pre_tokenizers.Punctuation("removed")))
bert = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
tables["other"] = ranges({c for c in POINTS if bert.normalize_str("a" + chr(c)) == "a"} - {0, 0xFFFD})
accents = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
nfd = changed(normalizers.NFD())
# What decomposes is judged by its parts.
tables["nonspacingMark"] = ranges({c for c in POINTS if c not in nfd and accents.normalize_str(chr(c)) == ""})
tables["combiningMark"] = ranges({c for c in POINTS if normalizers.StripAccents().normalize_str(chr(c)) == ""})

# Graphemes: what joins the sign before it. A compiled map replaces a whole grapheme of less than six bytes by what its beginning is mapped to.
mark = charsmap("ª".encode(), b"a")
short = {c for c in POINTS if mark.normalize_str("ª" + chr(c)) == "a"}
long = {c for c in POINTS if c >= 0x10000 and mark.normalize_str("ª\u0301" + chr(c)) == "a\u0301" + chr(c)}
tables["joining"] = ranges(short | long)

lower = changed(normalizers.Lowercase())
tables["lower"] = ";".join(f"{base36(c)}={'.'.join(base36(ord(x)) for x in text)}" for c, text in lower.items())

nfkd = changed(normalizers.NFKD())
write = lambda mapping: ";".join(f"{base36(c)}={'.'.join(base36(ord(x)) for x in text)}" for c, text in mapping.items())
tables["canonical"] = write({c: text for c, text in nfd.items() if c not in HANGUL})
tables["compatible"] = write({c: text for c, text in nfkd.items() if c not in HANGUL and nfd.get(c) != text})

# Combining classes: marks of a higher one move behind those of a lower one.
order = normalizers.NFD()
swaps = lambda a, b: a != b and order.normalize_str("a" + chr(a) + chr(b)) == "a" + chr(b) + chr(a)
import unicodedata

known = {240: 0x345}
for c in POINTS:
    # Later versions of Unicode have marks that this one has not.
    if c not in nfd and unicodedata.combining(chr(c)) and swaps(0x345, c):
        known.setdefault(unicodedata.combining(chr(c)), c)
classes = {}
steps = sorted(known)
for c in POINTS:
    if c in nfd:
        continue
    # 0x345 has the highest class.
    if not swaps(0x345, c) and not swaps(c, known[steps[0]]):
        continue
    below = [k for k in steps if swaps(c, known[k])]
    above = [k for k in steps if swaps(known[k], c)]
    between = [k for k in steps if k not in below and k not in above]
    if below or above:
        assert len(between) == 1, (hex(c), between)
        classes.setdefault(between[0], set()).add(c)
tables["combiningClasses"] = {str(k): ranges(members) for k, members in sorted(classes.items())}

# Two that a canonical decomposition ends with are put together again, but for some that are excluded.
nfc = normalizers.NFC()
pairs = {}
for c, text in nfd.items():
    if c in HANGUL or len(text) < 2:
        continue
    whole = nfc.normalize_str(text)
    if whole == chr(c):
        rest = nfc.normalize_str(text[:-1])
        assert len(rest) == 1, hex(c)
        pairs[c] = rest + text[-1]
tables["compositions"] = write(pairs)

header = f"""/**
 * What the Rust tokenizers {tokenizers.__version__} knows of Unicode, by `scripts/compare/unicode_tables.py`: its parts stand on tables of several versions,
 * and JavaScript's engines on others. Borders of ranges are distances in base 36; mappings are code points in base 36.
 */
"""
with open(sys.argv[1], "w") as file:
    file.write(header)
    file.write("// biome-ignore-all format: made by a script.\n" if False else "")
    for name, table in tables.items():
        if isinstance(table, dict):
            file.write(f"export const {name}: Readonly<Record<string, string>> = {json.dumps(table, indent=2)};\n")
        elif name in CATEGORIES:
            continue
        else:
            file.write(f"export const {name} =\n  {json.dumps(table)};\n")
    file.write(f"export const categories: Readonly<Record<string, string>> = {json.dumps({name: tables[name] for name in CATEGORIES if name != 'Cs'}, indent=2)};\n")
