"""Benign functions: name -> code, arguments, answer."""

from textwrap import dedent
from typing import Any


def of(code: str, expected: Any, **arguments: Any) -> tuple[str, dict[str, Any], Any]:
    """One of them, without the margin."""
    return dedent(code).strip(), arguments, expected


FUNCTIONS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "reverse": of("async def reverse_string(text: str) -> str:\n    return text[::-1]", "yelraP", text="Parley"),
    "plain reverse": of("def reverse_string(text: str) -> str:\n    return text[::-1]", "yelraP", text="Parley"),
    "word count": of(
        """
        async def count_words(text: str) -> dict[str, int]:
            counts: dict[str, int] = {}
            for word in text.lower().split():
                counts[word] = counts.get(word, 0) + 1
            return counts
        """,
        {"a": 2, "b": 1},
        text="a b A",
    ),
    "counter": of(
        """
        from collections import Counter
        async def common(words: list[str], top: int = 1) -> list[list]:
            return [list(each) for each in Counter(words).most_common(top)]
        """,
        [["a", 2]],
        words=["a", "b", "a"],
    ),
    "palindrome": of(
        """
        import re
        def is_palindrome(text: str) -> bool:
            letters = re.sub(r"[^a-z]", "", text.lower())
            return letters == letters[::-1]
        """,
        True,
        text="A man, a plan, a canal: Panama",
    ),
    "primes": of(
        """
        async def primes(below: int) -> list[int]:
            sieve = [True] * below
            for n in range(2, int(below ** 0.5) + 1):
                if sieve[n]:
                    for multiple in range(n * n, below, n):
                        sieve[multiple] = False
            return [n for n in range(2, below) if sieve[n]]
        """,
        [2, 3, 5, 7, 11, 13, 17, 19],
        below=20,
    ),
    "fibonacci with a cache": of(
        """
        from functools import lru_cache
        @lru_cache(maxsize=None)
        def fib(n: int) -> int:
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        async def fibonacci(n: int) -> int:
            return fib(n)
        """,
        12586269025,
        n=50,
    ),
    "a big number": of(
        """
        import math
        async def factorial(n: int) -> int:
            return math.factorial(n)
        """,
        "30414093201713378043612608166064768844377641568960512000000000000",
        n=50,
    ),
    "money": of(
        """
        from decimal import Decimal, ROUND_HALF_UP
        async def with_tax(net: str, rate: str = "0.19") -> str:
            gross = Decimal(net) * (1 + Decimal(rate))
            return str(gross.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))
        """,
        "11.90",
        net="10.00",
    ),
    "statistics": of(
        """
        import math
        async def describe(values: list[float]) -> dict[str, float]:
            mean = sum(values) / len(values)
            spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
            return {"mean": mean, "spread": spread, "median": sorted(values)[len(values) // 2]}
        """,
        {"mean": 2.0, "spread": 1.0, "median": 3},
        values=[1, 3, 1, 3],
    ),
    "days between": of(
        """
        from datetime import date
        async def days_between(first: str, last: str) -> int:
            return (date.fromisoformat(last) - date.fromisoformat(first)).days
        """,
        29,
        first="2024-02-01",
        last="2024-03-01",
    ),
    "working days": of(
        """
        from datetime import date, timedelta
        async def add_working_days(start: str, days: int) -> str:
            day = date.fromisoformat(start)
            while days > 0:
                day += timedelta(days=1)
                if day.weekday() < 5:
                    days -= 1
            return day.isoformat()
        """,
        "2026-11-24",
        start="2026-11-20",
        days=2,
    ),
    "a date in another form": of(
        """
        from datetime import datetime
        async def reformat(text: str) -> str:
            return datetime.strptime(text, "%d.%m.%Y").strftime("%Y-%m-%d")
        """,
        "2026-11-20",
        text="20.11.2026",
    ),
    "a date as the answer": of(
        """
        from datetime import datetime, timedelta
        async def later(text: str, hours: int):
            return datetime.fromisoformat(text) + timedelta(hours=hours)
        """,
        "2026-11-21T01:00:00",
        text="2026-11-20T23:00:00",
        hours=2,
    ),
    "emails": of(
        """
        import re
        EMAIL = re.compile(r"[\\w.+-]+@[\\w-]+\\.[\\w.]+")
        async def emails(text: str) -> list[str]:
            return sorted(set(EMAIL.findall(text)))
        """,
        ["a@b.org", "c.d@e.net"],
        text="c.d@e.net, a@b.org, a@b.org",
    ),
    "a slug": of(
        """
        import re, unicodedata
        async def slug(title: str) -> str:
            plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
            return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
        """,
        "uber-uns-cafe",
        title="Über uns: Café!",
    ),
    "csv": of(
        """
        import csv
        async def totals(text: str) -> dict[str, float]:
            rows = list(csv.reader(text.splitlines()))
            sums: dict[str, float] = {}
            for name, amount in rows[1:]:
                sums[name] = sums.get(name, 0.0) + float(amount)
            return sums
        """,
        {"x, y": 2.0, "b": 3.0},
        text='name,amount\n"x, y",2\nb,1\nb,2',
    ),
    "json": of(
        """
        import json
        from typing import Any
        async def pick(document: str, path: list[str]) -> Any:
            value = json.loads(document)
            for key in path:
                value = value[int(key)] if isinstance(value, list) else value[key]
            return value
        """,
        2,
        document='{"a": [1, {"b": 2}]}',
        path=["a", "1", "b"],
    ),
    "toml": of(
        """
        import tomllib
        async def version(text: str) -> str:
            return tomllib.loads(text)["project"]["version"]
        """,
        "1.2",
        text='[project]\nversion = "1.2"',
    ),
    "base64": of(
        """
        import base64
        async def encode(text: str) -> str:
            return base64.b64encode(text.encode()).decode()
        """,
        "aGk=",
        text="hi",
    ),
    "a hash": of(
        """
        import hashlib
        async def digest(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()[:12]
        """,
        "8f434346648f",
        text="hi",
    ),
    "bytes as the answer": of("async def raw(text: str):\n    return text.encode()", "aGk=", text="hi"),
    "a set as the answer": of("async def letters(text: str):\n    return set(text)", ["a", "b"], text="abba"),
    "a tuple as the answer": of("def low_high(n: list[int]):\n    return min(n), max(n)", [1, 3], n=[2, 1, 3]),
    "nothing as the answer": of("async def nothing() -> None:\n    pass", None),
    "gather": of(
        """
        import asyncio
        async def doubled(numbers: list[int]) -> list[int]:
            async def double(n: int) -> int:
                await asyncio.sleep(0.001)
                return n * 2
            return await asyncio.gather(*[double(n) for n in numbers])
        """,
        [2, 4],
        numbers=[1, 2],
    ),
    "a dataclass inside": of(
        """
        from dataclasses import dataclass, field
        @dataclass
        class Cart:
            items: list[float] = field(default_factory=list)
            def total(self) -> float:
                return sum(self.items)
        async def total(prices: list[float]) -> float:
            cart = Cart()
            for price in prices:
                cart.items.append(price)
            return cart.total()
        """,
        3.5,
        prices=[1, 2.5],
    ),
    "a dataclass as argument and answer": of(
        """
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: float
            y: float = 0.0
        async def mirrored(point: Point) -> Point:
            return Point(point.y, point.x)
        """,
        {"x": 0.0, "y": 2},
        point={"x": 2},
    ),
    "dataclasses in a list": of(
        """
        from dataclasses import dataclass
        @dataclass
        class Item:
            name: str
            price: float
            count: int = 1
        async def dearest(items: list[Item]) -> Item | None:
            return max(items, key=lambda item: item.price * item.count) if items else None
        """,
        {"name": "b", "price": 2, "count": 3},
        items=[{"name": "a", "price": 5}, {"name": "b", "price": 2, "count": 3}],
    ),
    "a simple class": of(
        """
        class Stack:
            def __init__(self):
                self.items = []
            def push(self, item):
                self.items.append(item)
            def pop(self):
                return self.items.pop()
        async def balanced(text: str) -> bool:
            pairs, stack = {")": "(", "]": "["}, Stack()
            for letter in text:
                if letter in "([":
                    stack.push(letter)
                elif letter in pairs and (not stack.items or stack.pop() != pairs[letter]):
                    return False
            return not stack.items
        """,
        True,
        text="([a](b))",
    ),
    "match": of(
        """
        async def kind(event: dict[str, str]) -> str:
            match event:
                case {"type": "push", "branch": branch}:
                    return f"push to {branch}"
                case {"type": other}:
                    return other
                case _:
                    return "unknown"
        """,
        "push to main",
        event={"type": "push", "branch": "main"},
    ),
    "errors caught": of(
        """
        async def safe_div(a: float, b: float) -> float | None:
            try:
                return a / b
            except ZeroDivisionError:
                return None
            finally:
                print("done")
        """,
        None,
        a=1,
        b=0,
    ),
    "an own error caught": of(
        """
        def check(age: int) -> None:
            if age < 0:
                raise ValueError(f"age {age} is negative")
        async def validate(age: int) -> str:
            try:
                check(age)
            except ValueError as error:
                return str(error)
            return "fine"
        """,
        "age -1 is negative",
        age=-1,
    ),
    "closures": of(
        """
        def adder(n: int):
            def add(m: int) -> int:
                return n + m
            return add
        async def add_all(numbers: list[int]) -> int:
            total = 0
            for n in numbers:
                total = adder(n)(total)
            return total
        """,
        6,
        numbers=[1, 2, 3],
    ),
    "a decorator": of(
        """
        def twice(function):
            def wrapped(*args):
                return function(*args) * 2
            return wrapped
        @twice
        def shout(text):
            return text.upper()
        async def loud(text: str) -> str:
            return shout(text)
        """,
        "HIHI",
        text="hi",
    ),
    "sorting by several keys": of(
        """
        async def ranking(rows: list[dict]) -> list[str]:
            return [row["name"] for row in sorted(rows, key=lambda row: (-row["score"], row["name"]))]
        """,
        ["b", "a", "c"],
        rows=[{"name": "c", "score": 1}, {"name": "a", "score": 1}, {"name": "b", "score": 2}],
    ),
    "grouping": of(
        """
        from collections import defaultdict
        async def by_letter(words: list[str]) -> dict[str, list[str]]:
            groups = defaultdict(list)
            for word in words:
                groups[word[0]].append(word)
            return dict(groups)
        """,
        {"a": ["ab", "ac"], "b": ["b"]},
        words=["ab", "b", "ac"],
    ),
    "itertools": of(
        """
        import itertools
        async def pairs(names: list[str]) -> list[str]:
            return ["-".join(pair) for pair in itertools.combinations(names, 2)]
        """,
        ["a-b", "a-c", "b-c"],
        names=["a", "b", "c"],
    ),
    "binary search": of(
        """
        import bisect
        async def grade(score: int, steps: list[int] = [60, 70, 80, 90]) -> str:
            return "FDCBA"[bisect.bisect(steps, score)]
        """,
        "B",
        score=85,
    ),
    "a matrix": of(
        """
        async def product(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
            return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]
        """,
        [[19, 22], [43, 50]],
        a=[[1, 2], [3, 4]],
        b=[[5, 6], [7, 8]],
    ),
    "shortest way": of(
        """
        from collections import deque
        async def steps(graph: dict[str, list[str]], start: str, end: str) -> int:
            seen, queue = {start}, deque([(start, 0)])
            while queue:
                node, far = queue.popleft()
                if node == end:
                    return far
                for other in graph.get(node, []):
                    if other not in seen:
                        seen.add(other)
                        queue.append((other, far + 1))
            return -1
        """,
        2,
        graph={"a": ["b"], "b": ["c"]},
        start="a",
        end="c",
    ),
    "edit distance": of(
        """
        async def distance(a: str, b: str) -> int:
            row = list(range(len(b) + 1))
            for i, x in enumerate(a, 1):
                before, row[0] = row[0], i
                for j, y in enumerate(b, 1):
                    before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
            return row[-1]
        """,
        3,
        a="kitten",
        b="sitting",
    ),
    "roman numbers": of(
        """
        NUMBERS = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
                   (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
        async def roman(n: int) -> str:
            text = ""
            for value, letters in NUMBERS:
                text += letters * (n // value)
                n %= value
            return text
        """,
        "MMXXVI",
        n=2026,
    ),
    "temperatures": of(
        """
        from typing import Literal
        async def convert(degrees: float, to: Literal["C", "F"]) -> float:
            return round((degrees - 32) / 1.8 if to == "C" else degrees * 1.8 + 32, 1)
        """,
        212.0,
        degrees=100,
        to="F",
    ),
    "a described parameter": of(
        """
        from typing import Annotated
        async def repeat(text: Annotated[str, "What to repeat"], times: Annotated[int, "How often"] = 2) -> str:
            return text * times
        """,
        "abab",
        text="ab",
    ),
    "options": of(
        """
        async def greet(name: str | None = None, *, polite: bool = True) -> str:
            return f"{'Dear' if polite else 'Hey'} {name or 'you'}"
        """,
        "Hey you",
        polite=False,
    ),
    "walrus and f-strings": of(
        """
        async def table(values: list[float]) -> list[str]:
            return [f"{n:>3}|{square:08.3f}" for n, v in enumerate(values) if (square := v * v) > 1]
        """,
        ["  1|0004.000"],
        values=[1, 2],
    ),
    "a seeded choice": of(
        """
        import random
        async def in_bounds(seed: int) -> bool:
            random.seed(seed)
            return all(1 <= random.randint(1, 6) <= 6 for _ in range(100))
        """,
        True,
        seed=5,
    ),
    "unicode": of("async def upper(text: str) -> str:\n    return text.upper()", "ÄÖÜ 🎈", text="äöü 🎈"),
    "a long text": of("async def size(text: str) -> int:\n    return len(text)", 200_000, text="x" * 200_000),
    "a deep copy": of(
        """
        import copy
        async def untouched(data: dict) -> bool:
            other = copy.deepcopy(data)
            other["a"].append(1)
            return data["a"] == []
        """,
        True,
        data={"a": []},
    ),
    "helpers that await": of(
        """
        async def one_more(n: int) -> int:
            return n + 1
        async def plus_two(n: int) -> int:
            return await one_more(await one_more(n))
        """,
        3,
        n=1,
    ),
}
