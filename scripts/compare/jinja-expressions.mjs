/** Templates whose text depends on Python's semantics, one kind a row. `m` is a list of messages, `d` a mapping, `s` a text, `none` stays None. */
export const expressions = String.raw`
{{ none }} {{ true }} {{ false }} {{ 1.0 }} {{ 1e3 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 12345678901234567890 }} {{ -0.0 }} {{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }}
{{ [1, 1.0, none, true, 'a', "it's", 'q"', "b'\"", (1,), (), (1, 2), {}, {'a': [none]}] }}
{{ d }} {{ m }} {{ d.big }} {{ d.one }} {{ d.half }} {{ d.exp }}
{{ d | tojson }} {{ m | tojson }} {{ d | tojson(indent=2) }} {{ d | tojson(indent=0) }} {{ d | tojson(separators=(',', ':')) }} {{ d | tojson(sort_keys=true) }} {{ d | tojson(ensure_ascii=true) }} {{ [] | tojson(indent=4) }} {{ {} | tojson }}
{{ 1.0 | tojson }} {{ 12345678901234567890 | tojson }} {{ none | tojson }} {{ (1, 'a') | tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ "a\n\t\"\\\u2028é\x7f" | tojson }} {{ 'é🙂' | tojson(true) }}
{{ undefined_name | tojson }}
{{ range(3) | tojson }}
{{ 'x' + d }}
{{ d + 'x' }}
{{ 'x' + 1 }}
{{ 'x' + none }}
{{ 'x' + undefined_name }}
{{ undefined_name + 'x' }}
{{ 'x' ~ 1 ~ none ~ 1.0 ~ undefined_name ~ [1] ~ d.one }}
{{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'ab' * 2 }} {{ 2 * [0] }} {{ true + true }} {{ 'a' * -1 }}
{{ [1] + (2,) }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 7.5 % 2 }} {{ -7.5 // 2 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 100 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}
{{ 1 / 0 }}
{{ 9007199254740993 + 1 }} {{ 9007199254740991 * 9007199254740991 }} {{ 12345678901234567890 % 97 }} {{ -12345678901234567890 // 7 }} {{ 12345678901234567890 == 12345678901234567890.0 }}
{{ 'a' < 'b' }} {{ '\ue000' < '🙂' }} {{ [1, 2] < [1, 3] }} {{ 1 < 2.5 }} {{ true < 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ (1, 'a') <= (1, 'a') }}
{{ 'a' < 1 }}
{{ none < 1 }}
{{ {} < {} }}
{{ undefined_name < 1 }}
{{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ [1] == (1,) }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1.0} }} {{ none == undefined_name }} {{ undefined_name == other_name }} {{ [none] == [none] }} {{ '' == none }}
{{ 'a' in 'abc' }} {{ '' in 'abc' }} {{ 'a' in d }} {{ 'text' in d }} {{ 1 in [1.0] }} {{ 'x' not in ['y'] }} {{ 'x' in undefined_name }} {{ 2 in range(3) }} {{ 'user' in m | map(attribute='role') }}
{{ 1 in 'abc' }}
{{ 'a' in none }}
{{ not none }} {{ not [] }} {{ not 0.0 }} {{ not 'a' }} {{ none or 'x' }} {{ [] and 1 }} {{ 0 or [] }} {{ 'a' and 'b' }} {{ none and 1 }}
{{ 1 if false }} {{ 1 if none else 2 }} {{ (1 if false) is defined }} {{ 'a' if true else b.c }}
{{ undefined_name }} {{ undefined_name is defined }} {{ d.missing }} {{ d.missing is defined }} {{ d['missing'] is undefined }} {{ m[9] }} {{ m[-1].role }} {{ m[0]['role'] }} {{ d.text[0] }} {{ d.text[-1] }} {{ d.text[99] }} {{ none.x }}
{{ undefined_name.x }}
{{ d.missing.x }}
{{ none.x.y }}
{{ undefined_name() }}
{{ d() }}
{{ d.items is callable }}{# a method goes before a key #}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.keys() }} {{ d.items() | length }} {{ d.get('text') }} {{ d.get('no') }} {{ d.get('no', 1) }} {{ d.get('nothing', 1) }} {{ d.nothing }} {{ d['items'] is callable }}
{{ d.update({'a': 1}) }}
{{ m.append(1) }}
{{ d.pop('text') }}
{{ ''.__class__ }} {{ d.__class__ }}
{{ ''.__class__.x }}
{{ d.text[1:3] }} {{ '🙂a👍b'[1] }} {{ '🙂a👍b' | length }} {{ '🙂a👍b'[::-1] }} {{ 'abcdef'[-3:-1] }} {{ 'abcdef'[::2] }} {{ [1, 2, 3][:-1] }} {{ [1, 2, 3][::-1] }} {{ (1, 2, 3)[1:] }} {{ 'abc'[5:] }} {{ range(5)[1] }} {{ m[1:] | length }} {{ 'abc'[none:2] }}
{{ '  a b '.strip() }}|{{ 'xxaxx'.lstrip('x') }}|{{ '<s><s>a'.lstrip('<s>') }}|{{ 'a\u00a0\u2003\x1f'.strip() }}|{{ '\ufeffa\u200b'.strip() | tojson }}|{{ 'abcba'.rstrip('ab') }}|{{ ' a\n'.rstrip() }}|{{ '\n\n a'.lstrip('\n') }}|{{ ' x '.strip(none) }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a  b c'.split(none, 1) }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ 'a,b'.split(',', maxsplit=1) }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a</think>b</think>c'.split('</think>')[-1] }} {{ 'a\u3000b\x1cc'.split() }}
{{ 'a'.split('') }}
{{ 'Hello World'.upper() }} {{ 'ßİ'.lower() }} {{ 'ß'.upper() }} {{ 'hELLO wORLD'.capitalize() }} {{ "they're o'neil x2y".title() }} {{ "they're o'neil (x) a-b" | title }} {{ 'aBc'.swapcase() }} {{ 'ǆx'.capitalize() }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc', 1) }} {{ 'abc'.startswith('b', 1) }} {{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ '🙂c'.find('c') }} {{ 'abc'.find('x') }} {{ 'abab'.count('ab') }} {{ 'aaa'.count('') }} {{ 'abc'.index('c') }}
{{ 'abc'.index('x') }}
{{ 'abcabc'.replace('b', 'X') }} {{ 'abcabc'.replace('b', 'X', 1) }} {{ 'ab'.replace('', '-') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 123 | replace(2, 'x') }}
{{ 'a\nb\r\nc\u2028d\x0be'.splitlines() }} {{ 'a\n'.splitlines(true) }} {{ 'a.b.c'.partition('.') }} {{ 'a.b.c'.rpartition('.') }} {{ 'abc'.partition('x') }} {{ 'abcd'.removeprefix('ab') }} {{ 'abcd'.removesuffix('cd') }} {{ '5'.zfill(3) }} {{ '-5'.zfill(4) }} {{ 'a'.center(6, '*') }} {{ 'ab'.center(5, '*') }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3) }} {{ 'a\tb'.expandtabs(4) }}
{{ 'abc'.isalpha() }} {{ '12'.isdigit() }} {{ '１２'.isdigit() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ 'é'.isascii() }} {{ ''.isalpha() }} {{ 'Ab Cd'.istitle() }}
{{ '-'.join(['a', 'b']) }} {{ ''.join(m | map(attribute='role')) }}
{{ '-'.join([1]) }}
{{ '{} {1}'.format(1) }}
{{ '{} {}'.format(1, 'a') }} {{ '{0}{0}{x}'.format('a', x=none) }} {{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:e}|{:%}'.format('a', 'b', 'c', 42, 3.14159, 1234567, 255, 12345.678, 0.25) }} {{ '{!r}'.format('a') }} {{ '{{}}'.format() }} {{ '{a.role} {a[content]}'.format(a=m[0]) }} {{ '{:+d} {: d} {:g} {:g}'.format(1, 2, 1e10, 0.0001) }}
{{ '%s %d %5.2f %-4s| %04d %x %r %%' % ('a', 3.9, 3.14159, 'b', 7, 255, "it's") }} {{ '%s' % 'a' }} {{ '%(a)s' % {'a': 1} }} {{ '%s' % none }} {{ '%s' % [1] }} {{ '%5s' | format('a') }} {{ '%e %g %g' % (12345.678, 1e-5, 100000.0) }} {{ '%+d' % 5 }} {{ '%c' % 65 }}
{{ '%s %s' % 'a' }}
{{ '%d' % 'a' }}
{{ 'a' % 1 }}
{{ m | map(attribute='role') | list }} {{ m | map('length') | list }} {{ m | selectattr('role', 'equalto', 'user') | list | length }} {{ m | rejectattr('role', '==', 'user') | map(attribute='content') | join('|') }} {{ m | selectattr('tool_calls', 'defined') | list }} {{ [1, none, 2] | select | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 2] | reject('gt', 1) | list }} {{ m | map(attribute='none_such', default='x') | first }}
{{ m | map(attribute='role') | length }}
{{ (m | map(attribute='role')) is sequence }} {{ (m | map(attribute='role')) is iterable }} {{ d.items() is sequence }} {{ d is sequence }} {{ d is mapping }} {{ 'a' is sequence }} {{ 'a' is iterable }} {{ m is mapping }} {{ none is iterable }} {{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1.0 is float }} {{ 1.0 is integer }} {{ true is boolean }} {{ undefined_name is iterable }} {{ undefined_name is none }} {{ undefined_name is string }} {{ range(2) is sequence }} {{ 'a' is string }} {{ none is none }} {{ 1 is true }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ 4 is even }} {{ 'a' is in 'abc' }} {{ 'a' is eq 'a' }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 'AB' is upper }} {{ 1 is sameas 1 }} {{ none is not none }} {{ d is callable }} {{ range is callable }} {{ undefined_name is sequence }}
{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'a', 'B'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [3, 1] | sort(reverse=true) }} {{ m | sort(attribute='role') | map(attribute='role') | join(',') }} {{ {'b': 1, 'A': 2, 'c': 0} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(by='value') }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'a': 2} | dictsort(reverse=true) }}
{{ [1, 'a'] | sort }}
{{ [1, 2, 3] | first }} {{ [] | first }} {{ 'abc' | first }} {{ [1, 2] | last }} {{ 'abc' | last }} {{ [1, 2, 3] | sum }} {{ [1.5, 2] | sum }} {{ m | sum(attribute='role', start='') if false else 'x' }} {{ [3, 1, 2] | max }} {{ ['b', 'A'] | min }} {{ [] | max }} {{ ['a', 'A', 'b'] | unique | list }} {{ [1, 2, 3] | reverse | list }} {{ 'abc' | reverse }} {{ 'abc' | list }} {{ d | list }} {{ 5 | string | length }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }} {{ [1, 2, 3] | slice(2, 'x') | list }} {{ m | groupby('role') | map('first') | list }} {{ d | items | list | length }}
{{ 'a b' | trim }} {{ 'xax' | trim('x') }} {{ '  a\u00a0' | trim }}| {{ 1 | trim }} {{ 'a' | upper | lower }} {{ none | upper }} {{ undefined_name | upper }}| {{ 'abc' | capitalize }} {{ 'a' | center(5) }}| {{ 'a b c' | wordcount }} {{ 'a' | default('b') }} {{ none | default('b') }} {{ none | default('b', true) }} {{ undefined_name | default('b') }} {{ '' | d('x', boolean=true) }} {{ d.missing | default }}|
{{ 'a\nb\n\nc' | indent }} {{ 'a\nb' | indent(2, true) }} {{ 'a\n\nb' | indent(2, blank=true) }} {{ 'a\nb' | indent(width='>> ') }}
{{ '5' | int }} {{ '5.7' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ '0x1f' | int(base=16) }} {{ 5.9 | int }} {{ none | int }} {{ '1_000' | int }} {{ ' 5 ' | int }} {{ '12345678901234567890' | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ '1e3' | float }} {{ 5 | float }} {{ true | int }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 0.125 | round(2) }} {{ 5 | round }} {{ 2.4 | round(method='ceil') }} {{ 2.6 | round(0, 'floor') }} {{ 1234 | round(-2) }} {{ -3 | abs }} {{ -3.5 | abs }} {{ 1000 | filesizeformat }} {{ 1 | filesizeformat }} {{ 123456789 | filesizeformat }} {{ 1024 | filesizeformat(true) }}
{{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }} {{ 'foo bar baz qux' | truncate(11, leeway=0) }} {{ 'a/b c&d' | urlencode }} {{ {'a b': 'c/d'} | urlencode }} {{ '<b>a &amp; b</b>' | striptags }}
{{ '<a>' | e }} {{ ('<a>' | e) + '<b>' }} {{ '<b>' + ('<a>' | safe) }} {{ ('<a>' | safe) ~ '<b>' }} {{ ('<a>' | safe) | length }} {{ ('<a>' | safe) is escaped }} {{ ('<a>' | safe).replace('a', '<') }} {{ (('%s' | safe) % '<x>') }} {{ [('<a>' | safe)] }} {{ '<a>' | safe | upper }} {{ ('<a>' | safe) == '<a>' }} {{ '<a>' | forceescape }}
{% for x in m %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('a', 'b') }}{{ loop.previtem.role }}{{ loop.nextitem is defined }}{{ loop.depth }}{{ loop.changed(x.role) }} {% endfor %}{{ loop is defined }}
{% for x in m if x.role == 'user' %}{{ loop.length }}{{ x.content }}{% else %}none{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}{% for x in none_such %}{% else %}undefined{% endfor %}
{% for x in none %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }} {% endfor %}{% for c in 'a🙂' %}[{{ c }}]{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% set x = 0 %}{% for i in [1, 2] %}{{ x }}{% set x = i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }} {{ ns.missing is defined }} {{ namespace({'a': 1}, b=2).b }}
{% set q.a = 1 %}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}{{ range(3) }} {{ range(1, 10, 3) | list }} {{ range(3, 0, -1) | list }} {{ range(0) | list }}
{{ range(100001) }}
{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{{ loop.depth }}{% endif %}{% endfor %}
{% macro f(a, b='d', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=1) }}{{ f(1, c=3) }}{{ f(a=undefined_name) }}{{ f.name }}{{ f }}
{% macro f(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, x=4) }}{% macro g() %}{{ caller() }}{% endmacro %}{% call g() %}body{% endcall %}{% macro h() %}<{{ caller('x') }}>{% endmacro %}{% call(v) h() %}{{ v }}{% endcall %}
{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{% endmacro %}{{ f(x=2) }}
{% macro f() %}{{ y }}{% set y = 2 %}{{ y }}{% endmacro %}{% set y = 1 %}{{ f() }}{{ y }}{% macro g(n) %}{{ n }}{% if n > 0 %}{{ g(n - 1) }}{% endif %}{% endmacro %}{{ g(3) }}
{% macro f(x) %}{% for i in [1] %}{{ loop.index }}{{ x }}{% endfor %}{% endmacro %}{% for x in 'ab' %}{{ f(x) }}{% endfor %}{{ f('c') | upper | trim }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t %} x{{ a }} {% endset %}[{{ t }}]{% set t | trim | upper %} y {% endset %}[{{ t }}]{% set u = 1, 2 %}{{ u }}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% set c = 3 %}{% endwith %}{{ a is defined }}{{ c is defined }}{% filter upper | replace('A', 'b') %}a{{ s }}{% endfilter %}{% block z %}x{% endblock %}{% print 1, 'a' %}
{% raw %}{{ x }} {% if %}{% endraw %}|{# comment #}|{{ '{{' }}|{{ "%}" }}
  {% if true %}
    a
  {% endif %}
b {%- if true -%}   c   {%- endif %}   d {{- ' e' -}}   f{#- x -#}  g
a   {%+ if true %}x{% endif +%}
b
{% if true %} x{% endif %}{% if false %}1{% elif none %}2{% else %}3{% endif %}{% if not x is defined %}ok{% endif %}{{ 1 if x is not defined else 2 }}{{ not 1 == 2 }}{{ 'a' if not d.missing else 'b' }}
{{ {'a': 1}['a'] }} {{ {'a': {'b': 2}}.a.b }} {{ {1: 'x', '1': 'y'}[1] }} {{ {true: 'x'}[1] }} {{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ [[1, 2], [3]][0][1] }} {{ m[0].content[0] }} {{ m.0.role }} {{ (1, 2).0 }}
{{ {[]: 1} }}
{{ -1 }} {{ +1 }} {{ - -1 }} {{ 1 - -1 }} {{ -'a' }}
{{ -1 | abs }} {{ (-1) | abs }} {{ 2 + 3 * 4 - 1 }} {{ 'a' ~ 1 + 2 }} {{ 1 + 2 ~ 'a' }} {{ not true or true }} {{ 1 == 1 and 2 == 2 }} {{ 'a' 'b' }} {{ "a\x41\u0042\103\q" }}
{{ joiner(',')() }}{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ c.current }}
{{ strftime_now('%d %b %Y %H:%M:%S %A %B %j %y %p %I %-d %e') }}
{% generation %}abc{% endgeneration %}{% for x in m %}{{ x.role }}{% if x.role == 'assistant' %}{% generation %}{{ x.content }}🙂{% endgeneration %}{% endif %}{% endfor %}
{{ 'zero\u200bwidth\u200d\u00a0\u2028🙂\ud7ff\U000e0001é' | list }} {{ ['\x00\x1f\x7f\x80\xad'] }} {{ ['\\'] }}
{{ m[0].content | length }} {{ m | length }} {{ none | length }}
{{ 5 | length }}
{{ 'a' | nosuchfilter }}
{% if false %}{{ 'a' | nosuchfilter }}{% endif %}x
{{ 'a' is nosuchtest }}
{% nosuchtag %}
{{ raise_exception('No!') }}
{{ m | tojson | length }} {{ m[1].tool_calls[0].function.arguments | tojson }} {{ m[1].tool_calls[0].function.arguments.items() | list }} {{ m[1].tool_calls[0].function.arguments is mapping }} {{ m[1].tool_calls is iterable }}
{{ s.strip().split('\n')[0] | trim }} {{ s | replace('\n', ' ') | trim | upper }} {{ (s ~ 'x') | trim }} {{ s.split() | join(' ') }}
{{ [1, 2, 3] | map('string') | join('+') }} {{ ['a', 'b'] | map('upper') | list }} {{ [[1, 2], [3]] | map('join', '-') | list }} {{ ['1', '2'] | map('int') | sum }} {{ [1, 2] | join(d='-') }} {{ m | join(', ', attribute='role') }}
{{ m | selectattr('role') | list | length }} {{ [{'a': 1}, {'a': none}] | selectattr('a') | list }} {{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }} {{ [[5, 6]] | map(attribute=1) | list }} {{ m | attr('role') }} {{ 'abc' | attr('upper') is callable }}
{{ undefined_name is callable }} {{ d.missing is not callable }} {{ d is callable }}
{{ d.nothing[:2] }}
{{ d[1:] }}
{{ d.flag[::-1] }}
{{ range(9)[2:7:2] }} {{ range(5)[::-1] }} {{ range(5)[1:] | list }} {{ range(4)[:-1:-1] }}
{{ d.nothing | map('upper') | list }} {{ d.nothing | selectattr('x') | list }} {{ d.missing | map(attribute='x') | join }} {{ 0 | reject | list }} {{ '' | select | list }}
{{ 5 | map('upper') | list }}
{{ (5 | select) is defined }} {{ (m | selectattr('content', 'gt', 1)) is iterable }} {{ (5 | slice(2)) is iterable }} {{ [1, 2] | slice(-1) | list }}
{{ 'foo bar' | truncate(1) }}
{{ d | truncate(100) | length }} {{ m | truncate | length }}
{{ d.flag | truncate }}
{{ [('a b', 'c/d'), ('e', 1)] | urlencode }}
{{ [1] | urlencode }}
{{ 'a' % undefined_name }} {{ 'a' % [1] }} {{ 'a' % range(2) }} {{ '%s' % undefined_name }}
{{ [1, 2] | batch(0) | list }} {{ [1, 2] | batch(-1) | list }} {{ [] | batch(0) | list }}
{{ (m | map(attribute='role')) | reverse }} {{ [1, 2] | reverse | list }} {{ d | reverse | first }}
{{ strftime_now('%U %W %V %G %g [%z%Z] %P %r %C %c %x %X %D %T %h') }}
`
  .trim()
  .split(/\n(?=\{| {2}\{)/);

/** What the templates above are given, as JSON. */
export const variables = `{
  "m": [
    {"role": "user", "content": "Hi 🙂"},
    {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"10": 1.0, "2": 12345678901234567890, "b": "ü"}}}]},
    {"role": "assistant", "content": "Bye"}
  ],
  "d": {"text": "grüße", "big": 12345678901234567890, "one": 1.0, "half": 0.5, "exp": 1e3, "nothing": null, "flag": true, "10": "ten", "9": [1, [2.50]]},
  "s": "\\n first line \\nsecond\\t"
}`;
