"""Templates of instructions: what they may say, and that none of them costs more than its bound."""

import pytest

from app.agents.template import check_instructions, check_template, render_instructions
from app.errors import InvalidRequest, RunFailed

VALUES = {
    "user": {"name": "Ann", "tags": ["a", "b"]},
    "title": "T & t",
    "context": {"rows": [{"n": n, "s": "x" * 10} for n in range(1_000)]},
}
TEN = '{% set a = "xxxxxxxxxx" %}'
NESTED = "".join(f"{{% for b{n} in [[b{n - 1}, b{n - 1}]] %}}" for n in range(1, 18))
DEEP = "it is nested too deeply"
TOO_MUCH = "it does too much"


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ('{{ user.name|upper }} {{ "a" ~ user.name }} {{ user.tags|join(", ") }}{{ nothing.at.all }}', "ANN aAnn a, b"),
        ("{% for r in context.rows[:3] %}{{ loop.index }}:{{ r.n }}{% if not loop.last %}, {% endif %}{% endfor %}", None),
        ("{% for k, v in user.items() %}{{ k }}={{ v }};{% endfor %}", "name=Ann;tags=['a', 'b'];"),
        ("{% set x = user.name.replace('n', 'N') %}{{ x }} {{ 7 % 3 }} {{ 2 * 3 }} {{ 3.14159|round(2) }}", "ANN 1 6 3.14"),
        ("{{ context.rows|map(attribute='n')|select('odd')|list|length }} {{ context.rows|sum(attribute='n') }}", "500 499500"),
        ("{{ user|tojson }} {{ missing|default('d') }} {{ x is defined }} {{ ','.join(user.tags) }}", None),
        ("{% with a = 1 %}{{ a }}{% endwith %}{% raw %}{{ x }}{% endraw %}", "1{{ x }}"),
        ("{% for x in user.tags %}{{ loop.cycle('p', 'q') }}{% else %}none{% endfor %}", "pq"),
    ],
)  # fmt: skip
def test_instructions_say_what_the_values_say(text: str, rendered: str | None) -> None:
    check_template(text, "instructions")
    assert render_instructions(text, VALUES) == rendered or rendered is None


def test_instructions_loop_over_a_thousand_rows() -> None:
    text = "{% for r in context.rows %}{{ r.n }} {{ r.s|upper }}\n{% endfor %}"
    assert render_instructions(text, VALUES).count("XXXXXXXXXX\n") == 1_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TEN + "{% set a = a ~ a %}" * 60, TOO_MUCH),
        (TEN + "{% set a = a + a %}" * 60, TOO_MUCH),
        ("{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}", TOO_MUCH),
        (TEN + "{{ a" + "|replace('x', 'xxxxxxxxxx')" * 30 + " }}", TOO_MUCH),
        (TEN + "{{ a" + ".replace('x', 'xxxxxxxxxx')" * 30 + " }}", TOO_MUCH),
        ("{{ '\"'" + "|tojson" * 40 + " }}", TOO_MUCH),
        ("{{ ['\"']" + "|map('tojson')" * 40 + "|list }}", TOO_MUCH),
        ("{% set l = [" + "1," * 2_000 + "] %}{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}", TOO_MUCH),
        ("{% for b0 in [[1, 1]] %}" + NESTED + "{{ s }}" + "{% endfor %}" * 18, TOO_MUCH),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "line 1: macro can't stand"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "block can't stand"),
        (TEN + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60, "set without = can't stand"),
        ("{% filter upper %}x{% endfilter %}", "filter can't stand"),
        ("{% include 'x' %}", "include can't stand"),
        ("{% for x in [1, [2]] recursive %}{{ loop([x]) }}{% endfor %}", "a recursive loop can't stand"),
        ("{{ '%999999999d' % 1 }}", "% is for numbers"),
        ("{{ '{:999999999}'.format(1) }}", "format can't be called"),
        ("{{ 10000 ** 10000 }}", "for numbers up to 100"),
        ("{{ [[1]]|sum(start=[]) }}", "sum is for numbers"),
        ("{{ 'x'|center(999999999) }}", "No filter named 'center'"),
        ("{{ a }}" * 5_000, "more code than"),
        ("{{ " + "(" * 2_000 + "1" + ")" * 2_000 + " }}", DEEP),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, DEEP),
    ],
)
def test_instructions_that_would_hold_the_process_are_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        check_template(text, "instructions")
    assert caught.value.field == "instructions"


def test_the_work_of_a_run_is_counted_with_its_values() -> None:
    text = "{% for a in context.rows %}{% for b in context.rows %}{% endfor %}{% endfor %}"
    check_template(text, "instructions")
    with pytest.raises(RunFailed, match=TOO_MUCH):
        render_instructions(text, VALUES)


def test_json_is_not_stretched() -> None:
    with pytest.raises(RunFailed, match="indent"):
        render_instructions("{{ user|tojson(indent=999999999) }}", VALUES)


def test_every_rendering_has_the_whole_effort() -> None:
    text = "{% for a in context.rows %}{% for b in user.tags %}{{ a.s }}{% endfor %}{% endfor %}"
    assert len({render_instructions(text, VALUES) for _ in range(10)}) == 1


@pytest.mark.parametrize("text", ["{{ nonsense }}", "{% if person.name %}x{% endif %}"])
def test_what_no_run_has_is_refused(text: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"line 1: there is no '\w+'; there are context, title, today, user"
    ) as refused:
        check_instructions(text)
    assert refused.value.field == "instructions"


def test_what_runs_have_may_be_named() -> None:
    check_instructions("{% set a = today[:4] %}{{ a }} {{ user }} {{ title|upper }} {{ context.customer.plan }}")
