"""calculator: exact arithmetic without eval.

The expression is read by Python's parser and evaluated here, node by node, on fractions: 0.1 + 0.2 is
0.3 and 1/3*3 is 1. What has no fraction (roots, logarithms, sines) goes on as a decimal of 50 digits.
Every step is bounded before it is computed, so that 9**9**9 is an error and not a frozen process.
"""

import ast
import math
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, localcontext
from fractions import Fraction
from typing import NoReturn

from pydantic import Field

from app.errors import ToolError
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

Number = Fraction | Decimal  # exact, or as near as WORKING digits allow

MAX_CHARACTERS = 1_000
MAX_DEPTH = 100
MAX_BITS = 13_000  # about 3,900 digits: Python prints integers of up to 4,300
MAX_LITERAL_EXPONENT = 3_000
MAX_FACTORIAL = 1_000
MAX_ROUND_DIGITS = 1_000
MAX_EXACT_PLACES = 60  # a terminating decimal longer than this is rounded like the others
SHOWN_DIGITS = 28
TRIGONOMETRIC_DIGITS = 30  # of the largest angle accepted

WORKING = Context(prec=50, Emax=5_000, Emin=-5_000)
WIDE = Context(prec=50 + TRIGONOMETRIC_DIGITS + 10, Emax=5_000, Emin=-5_000)
NOTHING = Decimal("1e-45")  # what remains of a zero after rounding

PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651"
)
E = WORKING.exp(Decimal(1))

SPELLINGS = str.maketrans({"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "π": "pi"})


class Calculation(Arguments):
    """The arguments of `calculator`."""

    expression: str = Field(
        min_length=1, max_length=MAX_CHARACTERS, description="For example (2 + 3) * 4 / 7, sqrt(2) or round(10 / 3, 2)."
    )


async def calculate(context: ToolContext, arguments: Calculation) -> str:
    """The value of the expression."""
    del context
    return evaluate(arguments.expression)


def evaluate(expression: str) -> str:
    """The value of an expression as text.

    Raises:
        ToolError: saying what is wrong with it.
    """
    try:
        with localcontext(WORKING):
            return shown(_value(_parse(expression), 0))
    except ZeroDivisionError as error:
        raise ToolError("division by zero") from error
    except DecimalException as error:
        raise ToolError("the result is too large, or not a real number") from error


def _parse(expression: str) -> ast.expr:
    """The expression as a tree that remembers its text."""
    text = expression.translate(SPELLINGS).strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError(f"{expression!r} is not an arithmetic expression") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            # A float has lost digits by now: keep what was written.
            node.kind = ast.get_source_segment(text, node)
    return tree


def _refuse(message: str) -> NoReturn:
    raise ToolError(message)


# --- the tree -------------------------------------------------------------------------------------


def _value(node: ast.expr, depth: int) -> Number:
    if depth > MAX_DEPTH:
        _refuse("the expression is nested too deeply")
    match node:
        case ast.Constant():
            return _literal(node)
        case ast.Name(id=name):
            return _constant(name)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _value(operand, depth + 1)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            return _bounded(OPERATORS[type(operator)](_value(left, depth + 1), _value(right, depth + 1)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _call(name, [_value(argument, depth + 1) for argument in arguments])
        case _:
            _refuse(f"{ast.unparse(node)[:80]!r} is not arithmetic that the calculator knows")


def _literal(node: ast.Constant) -> Number:
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        _refuse(f"{node.value!r} is not a number")
    if isinstance(node.value, int):
        return Fraction(node.value)
    written = Decimal((node.kind or "").replace("_", ""))
    if abs(written.adjusted()) > MAX_LITERAL_EXPONENT:
        _refuse("the number is too large")
    return Fraction(written)


def _constant(name: str) -> Number:
    if name.lower() in CONSTANTS:
        return CONSTANTS[name.lower()]
    _refuse(f"{name!r} is not known: there are the constants {', '.join(CONSTANTS)}")


def _call(name: str, values: list[Number]) -> Number:
    if name not in FUNCTIONS:
        _refuse(f"{name!r} is not known: there are {', '.join(sorted(FUNCTIONS))}")
    least, most, function = FUNCTIONS[name]
    if not least <= len(values) <= most:
        _refuse(f"{name} takes {least if least == most else f'{least} to {most}'} numbers, not {len(values)}")
    return _bounded(function(*values))


def _bounded(value: Number) -> Number:
    """The value; a fraction too long to carry on goes on as a decimal."""
    return decimal(value) if isinstance(value, Fraction) and _bits(value) > MAX_BITS else value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


# --- operators ------------------------------------------------------------------------------------


def decimal(value: Number) -> Decimal:
    """A number to the precision of the moment."""
    return value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)


def _add(left: Number, right: Number) -> Number:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    return decimal(left) + decimal(right)


def _subtract(left: Number, right: Number) -> Number:
    return _add(left, -right)


def _multiply(left: Number, right: Number) -> Number:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    return decimal(left) * decimal(right)


def _divide(left: Number, right: Number) -> Number:
    if right == 0:
        _refuse("division by zero")
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left / right
    return decimal(left) / decimal(right)


def _floor_divide(left: Number, right: Number) -> Number:
    return Fraction(math.floor(_divide(left, right)))


def _modulo(left: Number, right: Number) -> Number:
    return _subtract(left, _multiply(right, _floor_divide(left, right)))


def _power(base: Number, exponent: Number) -> Number:
    if base == 0 and exponent < 0:
        _refuse("division by zero")
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        exact = _exact_power(base, exponent)
        if exact is not None:
            return exact
    if base < 0 and exponent != int(exponent):
        _refuse("a negative number has no real power of that kind")
    return decimal(base) ** decimal(exponent)


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """The power where it is a fraction of bearable length; None where it is irrational or longer."""
    root = _exact_root(base, exponent.denominator)
    if root is None or (_bits(root) > 1 and _bits(root) * abs(exponent.numerator) > 2 * MAX_BITS):
        return None
    return root**exponent.numerator


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    if degree == 1:
        return value
    if degree > 64 or value < 0:
        return None
    numerator, denominator = (_integer_root(part, degree) for part in value.as_integer_ratio())
    return Fraction(numerator, denominator) if numerator is not None and denominator is not None else None


def _integer_root(value: int, degree: int) -> int | None:
    """The root of a whole number where it is whole, by bisection."""
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
    return low if low**degree == value else None


# --- functions ------------------------------------------------------------------------------------


def _sqrt(value: Number) -> Number:
    if value < 0:
        _refuse("a negative number has no real square root")
    return _power(value, Fraction(1, 2))


def _round(value: Number, places: Number = Fraction(0)) -> Number:
    """Half to even, as Python and the standards do."""
    digits = _whole(places, "round")
    if abs(digits) > MAX_ROUND_DIGITS:
        _refuse("round takes at most 1000 places")
    return Fraction(round(Fraction(value), digits))


def _whole(value: Number, name: str) -> int:
    if value != int(value):
        _refuse(f"{name} takes whole numbers")
    return int(value)


def _factorial(value: Number) -> Number:
    number = _whole(value, "factorial")
    if not 0 <= number <= MAX_FACTORIAL:
        _refuse(f"factorial takes numbers from 0 to {MAX_FACTORIAL}")
    return Fraction(math.factorial(number))


def _gcd(*values: Number) -> Number:
    return Fraction(math.gcd(*(_whole(value, "gcd") for value in values)))


def _lcm(*values: Number) -> Number:
    return Fraction(math.lcm(*(_whole(value, "lcm") for value in values)))


def _ln(value: Number) -> Number:
    if value <= 0:
        _refuse("only positive numbers have a logarithm")
    return Fraction(0) if value == 1 else decimal(value).ln()


def _log(value: Number, base: Number | None = None) -> Number:
    """The logarithm, natural without a base; exact where it is a whole number."""
    if base is None:
        return _ln(value)
    if base == 1:
        _refuse("1 is no base of a logarithm")
    near = decimal(_ln(value)) / decimal(_ln(base))
    whole = Fraction(round(near))
    return whole if abs(whole) <= MAX_BITS and _power(base, whole) == value else near


def _exp(value: Number) -> Number:
    return Fraction(1) if value == 0 else decimal(value).exp()


def _sin(value: Number) -> Number:
    """The series around zero, after taking away whole turns."""
    if abs(value) > Decimal(10) ** TRIGONOMETRIC_DIGITS:
        _refuse("the angle is too large")
    with localcontext(WIDE):
        angle = decimal(value).remainder_near(2 * PI)
        term = total = angle
        power = 1
        while abs(term) > NOTHING / 10**10:
            term *= -angle * angle / ((power + 1) * (power + 2))
            total += term
            power += 2
    return _snapped(total)


def _cos(value: Number) -> Number:
    with localcontext(WIDE):
        return _sin(decimal(value) + PI / 2)


def _tan(value: Number) -> Number:
    cosine = _cos(value)
    if cosine == 0:
        _refuse("the tangent is not defined there")
    return _divide(_sin(value), cosine)


def _atan(value: Number) -> Number:
    """Halve the angle until the series is short: atan(x) = 2 atan(x / (1 + sqrt(1 + x*x)))."""
    with localcontext(WIDE):
        x, halvings = decimal(value), 0
        while abs(x) > Decimal("0.05"):
            x, halvings = x / (1 + (1 + x * x).sqrt()), halvings + 1
        term = total = x
        power = 1
        while abs(term) > NOTHING / 10**10:
            term *= -x * x
            power += 2
            total += term / power
        return _snapped(total * 2**halvings)


def _asin(value: Number) -> Number:
    if abs(value) > 1:
        _refuse("asin and acos take numbers from -1 to 1")
    if abs(value) == 1:
        return decimal(value) * PI / 2
    return _atan(_divide(value, _sqrt(_subtract(Fraction(1), _multiply(value, value)))))


def _acos(value: Number) -> Number:
    return _subtract(PI / 2, _asin(value))


def _snapped(value: Decimal) -> Number:
    """A decimal to the working precision; what rounding left of a zero is zero."""
    return Fraction(0) if abs(value) < NOTHING else WORKING.plus(value)


def _floor(value: Number) -> Number:
    return Fraction(math.floor(value))


def _ceil(value: Number) -> Number:
    return Fraction(math.ceil(value))


def _trunc(value: Number) -> Number:
    return Fraction(math.trunc(value))


def _abs(value: Number) -> Number:
    return abs(value)


def _max(*values: Number) -> Number:
    return sorted(values)[-1]


def _min(*values: Number) -> Number:
    return sorted(values)[0]


def _log10(value: Number) -> Number:
    return _log(value, Fraction(10))


def _log2(value: Number) -> Number:
    return _log(value, Fraction(2))


def _degrees(value: Number) -> Number:
    return _divide(_multiply(value, Fraction(180)), PI)


def _radians(value: Number) -> Number:
    return _divide(_multiply(value, PI), Fraction(180))


OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: _add,
    ast.Sub: _subtract,
    ast.Mult: _multiply,
    ast.Div: _divide,
    ast.FloorDiv: _floor_divide,
    ast.Mod: _modulo,
    ast.Pow: _power,
}
CONSTANTS: dict[str, Number] = {"pi": PI, "e": E}
MANY = 100
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Number]]] = {
    "abs": (1, 1, _abs),
    "acos": (1, 1, _acos),
    "asin": (1, 1, _asin),
    "atan": (1, 1, _atan),
    "ceil": (1, 1, _ceil),
    "cos": (1, 1, _cos),
    "degrees": (1, 1, _degrees),
    "exp": (1, 1, _exp),
    "factorial": (1, 1, _factorial),
    "floor": (1, 1, _floor),
    "gcd": (1, MANY, _gcd),
    "lcm": (1, MANY, _lcm),
    "ln": (1, 1, _ln),
    "log": (1, 2, _log),
    "log10": (1, 1, _log10),
    "log2": (1, 1, _log2),
    "max": (1, MANY, _max),
    "min": (1, MANY, _min),
    "radians": (1, 1, _radians),
    "round": (1, 2, _round),
    "sin": (1, 1, _sin),
    "sqrt": (1, 1, _sqrt),
    "tan": (1, 1, _tan),
    "trunc": (1, 1, _trunc),
}


# --- the answer -----------------------------------------------------------------------------------


def shown(value: Number) -> str:
    """A number as text: exact where it ends, else to 28 digits."""
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return str(value.numerator)
        exact = _terminating(value)
        if exact is not None:
            return exact
    return _rounded(decimal(value))


def _terminating(value: Fraction) -> str | None:
    """A fraction whose decimal ends soon, in full."""
    places = 0
    while places <= MAX_EXACT_PLACES and value.denominator != 1:
        value, places = value * 10, places + 1
    if value.denominator != 1:
        return None
    digits = str(abs(value.numerator)).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def _rounded(value: Decimal) -> str:
    rounded = Context(prec=SHOWN_DIGITS, Emax=10_000, Emin=-10_000).plus(value)
    if rounded == 0:
        return "0"
    if -10 <= rounded.adjusted() <= SHOWN_DIGITS:
        text = f"{rounded:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{rounded.normalize():e}".replace("e", "E")


TOOL = Tool(
    name="calculator",
    description=(
        "Calculate exactly: + - * / // % ** (or ^), parentheses, pi, e, sqrt, round, abs, min, max, floor, ceil, exp, "
        "ln, log (natural, or log(x, base)), log10, log2, sin, cos, tan (radians), factorial, gcd and more. "
        "For p percent of x write x * p / 100."
    ),
    parameters=parameters_of(Calculation),
    risk=Risk.READ,
    idempotent=True,
    call=validated(Calculation, calculate),
)
