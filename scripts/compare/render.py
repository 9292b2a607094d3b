"""Renders chat templates with jinja2 set up as transformers sets it up. Reads JSON requests from stdin, writes JSON results.

A request is {"template", "variables", "now"}; a result {"text", "generation": [[start, end], …] in code points} or {"error"}.
"""

import datetime
import json
import sys

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
        text = caller()
        start = sum(len(part) for part in self.environment.written)
        self.environment.spans.append((start, start + len(text)))
        return text


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(request):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.written, environment.spans = [], []
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    now = datetime.datetime.fromisoformat(request.get("now") or "2026-07-26T10:30:05")
    environment.globals["strftime_now"] = now.strftime
    try:
        for part in environment.from_string(request["template"]).generate(**request.get("variables", {})):
            environment.written.append(part)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": "".join(environment.written), "generation": environment.spans}


json.dump([render(request) for request in json.load(sys.stdin)], sys.stdout)
