"""Scores of pairs of texts: chrF2 by sacrebleu 2.6.0, with its defaults, and ROUGE-L by its definition.

    pip install sacrebleu==2.6.0 && python make_goldens.py

overlap.json holds [{"expected", "answer", "chrf", "rougeL"}, ...] and the same of all pairs together: chrF of a corpus, the mean of ROUGE-L.
ROUGE-L (Lin 2004, eq. 2 to 4) with beta 1: F1 of the longest common subsequence of words, which are what is left between characters that are no
letters and no digits, in lower case, as in Google's rouge_score; letters beyond ASCII count here.
"""
import json
import os
import random
import re

from sacrebleu.metrics import CHRF


def words(text):
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


def lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            table[i + 1][j + 1] = table[i][j] + 1 if a[i] == b[j] else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def rouge_l(expected, answer):
    a, b = words(expected), words(answer)
    common = lcs(a, b)
    if common == 0:
        return 0.0
    precision, recall = common / len(b), common / len(a)
    return 2 * precision * recall / (precision + recall)


fixed = [
    ("The cat sat on the mat.", "The cat sat on the mat."),
    ("The cat sat on the mat.", "the cat is sitting on a mat"),
    ("", "something"),
    ("something", ""),
    ("a", "a"),
    ("a", "b"),
    ("ab", "abcdefgh"),
    ("abcdefgh", "ab"),
    ("one two three four five six", "six five four three two one"),
    ("a b c d e f g h", "abcdefgh"),
    ("tabs\tand\nlines", "tabs and lines"),
    ("e-mail: jo@example.com (work)", "email jo at example dot com"),
    ("1,234.50 EUR", "1234.5 EUR"),
    ("don't stop", "do not stop"),
    ("snake_case and camelCase", "snake case and camel case"),
    ("Grüße aus Köln", "Grusse aus Koeln"),
    ("Grüße aus Köln", "GRÜSSE AUS KÖLN"),
    ("Где находится библиотека?", "Где библиотека находится?"),
    ("東京は日本の首都です", "日本の首都は東京です"),
    ("naïve café", "naive cafe"),
    ("emoji 😀 here", "emoji 😃 here"),
    ('{"name": "Ann", "count": 3}', '{"count": 3, "name": "Anna"}'),
    ("x" * 50, "x" * 49 + "y"),
    ("the the the the", "the"),
    ("   spaces   around   ", "spaces around"),
]
random.seed(5)
vocabulary = "red green blue small large old new box lamp book chair on under the a near of and is was".split()
drawn = []
for _ in range(27):
    expected = [random.choice(vocabulary) for _ in range(random.randint(1, 14))]
    answer = [random.choice(vocabulary) if random.random() < 0.3 else word for word in expected if random.random() > 0.15]
    drawn.append((" ".join(expected) + random.choice(["", ".", "!"]), " ".join(answer)))

chrf = CHRF()
pairs = [
    {"expected": e, "answer": a, "chrf": chrf.sentence_score(a, [e]).score, "rougeL": rouge_l(e, a)} for e, a in fixed + drawn
]
whole = {
    "chrf": chrf.corpus_score([p["answer"] for p in pairs], [[p["expected"] for p in pairs]]).score,
    "rougeL": sum(p["rougeL"] for p in pairs) / len(pairs),
}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "overlap.json"), "w") as file:
    json.dump({"pairs": pairs, "whole": whole}, file, ensure_ascii=False, indent=1)
    file.write("\n")
