"""Attacks on the sandbox: bodies of functions, by what they are after.

Each is the body of `async def f(canary, name, port, unix, folder, pid)`: a file that anybody may read and write, an
environment variable of the host, a listening port and socket, a folder anybody may write to, the host's process.
"""

FILES = {
    "open": "return open(canary).read()",
    "open bytes": "return open(canary, 'rb').read()",
    "upwards": "return open('/tmp/../../../..' + canary).read()",
    "pathlib": "import pathlib\nreturn pathlib.Path(canary).read_text()",
    "io": "import io\nreturn io.open(canary).read()",
    "codecs": "import codecs\nreturn codecs.open(canary).read()",
    "os.open": "import os\nreturn os.read(os.open(canary, 0), 999)",
    "exec a file": "exec(open(canary).read())\nreturn 'ran'",
    "json.load": "import json\nreturn json.load(open(canary))",
    "with": "with open(canary) as file:\n    return file.readlines()",
    "listing": "import os\nreturn os.listdir(folder)",
    "walking": "import os\nreturn list(os.walk('/'))",
    "glob": "import pathlib\nreturn [str(each) for each in pathlib.Path('/').iterdir()]",
    "descriptors": "return [open(number).read() for number in range(20)]",
    "memory of the host": "return open(f'/proc/{pid}/maps').read()",
    "write": "open(folder + '/written', 'w').write('x')",
    "overwrite": "open(canary, 'w').write('x')",
    "append": "import pathlib\nwith pathlib.Path(canary).open('a') as file:\n    file.write('x')",
    "rename": "import os\nos.rename(canary, folder + '/moved')",
    "remove": "import os, pathlib\ntry:\n    os.remove(canary)\nexcept BaseException:\n    pathlib.Path(canary).unlink()",
    "make a folder": "import os, pathlib\ntry:\n    os.mkdir(folder + '/made')\nexcept BaseException:\n    pathlib.Path(folder + '/made').mkdir()",
    "link": "import pathlib\npathlib.Path(folder + '/link').symlink_to(canary)",
    "fill the disk": "while True:\n    open(folder + '/full', 'ab').write(b'x' * 1000000)",
}

ENVIRONMENT = {
    "environ": "import os\nreturn os.environ[name]",
    "all of environ": "import os\nreturn dict(os.environ)",
    "getenv": "import os\nreturn os.getenv(name)",
    "environb": "import os\nreturn str(os.environb)",
    "own proc": "return open('/proc/self/environ').read()",
    "the host's proc": "return open(f'/proc/{pid}/environ').read()",
    "expandvars": "import os\nreturn os.path.expandvars('$' + name)",
    "set": "import os\nos.environ[name] = 'other'\nos.putenv(name, 'other')",
}

NETWORK = {
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', port)).send(b'x')",
    "raw socket": "import _socket\n_socket.socket().connect(('127.0.0.1', port))",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "unix": "import socket\nsocket.socket(socket.AF_UNIX).connect(unix)",
    "asyncio": "import asyncio\nawait asyncio.open_connection('127.0.0.1', port)",
    "asyncio unix": "import asyncio\nawait asyncio.open_unix_connection(unix)",
    "loop": "import asyncio\nawait asyncio.get_running_loop().create_connection(asyncio.Protocol, '127.0.0.1', port)",
    "listen": "import asyncio\nawait asyncio.start_server(print, '127.0.0.1', 0)\nawait asyncio.sleep(9)",
    "urllib": "import urllib.request\nreturn urllib.request.urlopen(f'http://127.0.0.1:{port}/').read()",
    "http": "import http.client\nhttp.client.HTTPConnection('127.0.0.1', port).request('GET', '/')",
    "a package": "import httpx\nreturn httpx.get(f'http://127.0.0.1:{port}/').text",
    "a device": "open(f'/dev/tcp/127.0.0.1/{port}', 'w').write('x')",
    "a name": "import socket\nreturn socket.getaddrinfo('localhost', port)",
}

PROCESSES = {
    "system": "import os\nreturn os.system('sleep 30 &')",
    "popen": "import os\nreturn os.popen('id').read()",
    "subprocess": "import subprocess\nreturn subprocess.run(['sleep', '30'])",
    "posix": "import posix\nreturn posix.system('sleep 30 &')",
    "asyncio": "import asyncio\nawait asyncio.create_subprocess_exec('sleep', '30')",
    "fork": "import os\nos.fork()\nimport time\ntime.sleep(9)",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'sleep 30'])",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "threads": "import threading\nwhile True:\n    threading.Thread(target=print).start()",
    "to_thread": "import asyncio\nawait asyncio.to_thread(print, 1)",
    "signal": "import os\nos.kill(pid, 10)",
    "own signals": "import signal\nsignal.pthread_kill(pid, 10)",
    "ctypes": "import ctypes\nctypes.CDLL(None).kill(pid, 10)",
    "crash": "import ctypes\nctypes.string_at(0)",
    "leave": "import os\nos._exit(0)",
    "exit": "import sys\nsys.exit(0)",
}

MEMORY = {
    "a list": "x = []\nwhile True:\n    x.append('a' * 100000)",
    "a text": "x = 'a'\nwhile True:\n    x += x",
    "at once": "return len('x' * 2_000_000_000)",
    "bytes": "return len(bytes(2_000_000_000))",
    "a dict": "x = {}\nwhile True:\n    x[len(x)] = len(x)",
    "a power": "return len(str(9 ** 9 ** 9))",
    "a shift": "return 1 << 40_000_000_000",
    "a format": "return len(f'{1:>2000000000}')",
    "a join": "return len(('x' * 10000).join(['y' * 10000] * 10000000))",
    "a replacement": "return len(('a' * 10000).replace('a', 'b' * 1000000))",
    "permutations": "import itertools\nreturn len(list(itertools.permutations(range(12))))",
    "a range": "return len(list(range(10 ** 9)))",
    "a nest": "x = []\nwhile True:\n    x = [x, x]",
    "swallowed": "x = []\nwhile True:\n    try:\n        while True:\n            x.append('a' * 100000)\n    except BaseException:\n        pass",
    "tasks": "import asyncio\nasync def g():\n    await asyncio.sleep(5)\nawait asyncio.gather(*[g() for _ in range(1000000)])",
    "decimal": "import decimal\ndecimal.getcontext().prec = 10 ** 9\nreturn str(decimal.Decimal(1) / 3)",
}

TIME = {
    "a loop": "while True:\n    pass",
    "swallowing": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "finally": "while True:\n    try:\n        pass\n    finally:\n        continue",
    "sleep": "import time\ntime.sleep(60)",
    "async sleep": "import asyncio\nawait asyncio.sleep(60)",
    "short sleeps": "import asyncio\nwhile True:\n    await asyncio.sleep(0.001)",
    "a sum": "return sum(range(10 ** 13))",
    "a regex": "import re\nreturn re.match('(a+)+$', 'a' * 40 + 'b') is None",
    "a recursion": "def g(n):\n    return g(n - 1) + g(n - 2) if n > 1 else 1\nreturn g(90)",
    "depth": "return await f(canary, name, port, unix, folder, pid)",
    "a big power": "return pow(3, 10 ** 8) % 7",
    "eval": "return eval('[0 for _ in range(10 ** 12)]')",
    "sorting": "return sorted(range(10 ** 7), key=lambda n: sorted(range(1000)))[0]",
    "never": "import asyncio\nawait asyncio.Event().wait()",
    "waiting for oneself": "import asyncio\nawait asyncio.gather(*[f(canary, name, port, unix, folder, pid) for _ in range(9)])",
    "at definition": "return 1\nwhile True:\n    pass",
}

OUTPUT = {
    "prints": "while True:\n    print('x' * 1000)",
    "one print": "print('x' * 10_000_000)",
    "small prints": "while True:\n    print(end='x')",
    "errors": "import sys\nwhile True:\n    print('x' * 1000, file=sys.stderr)",
    "a long text": "return 'x' * 10_000_000",
    "a long list": "return [1] * 1_000_000",
    "depth": "x = []\nfor _ in range(100000):\n    x = [x]\nreturn x",
    "a cycle": "x = []\nx.append(x)\nreturn x",
    "a cycle of dicts": "x = {}\nx['x'] = [x]\nreturn x",
    "odd keys": "return {(n, None, b'x'): n for n in range(100000)}",
    "a long key": "return {'x' * 1_000_000: 1}",
    "a long error": "raise ValueError('x' * 10_000_000)",
    "a long number": "return 10 ** 4000",
    "shared parts": "x = ['x' * 100]\nfor _ in range(40):\n    x = [x, x]\nreturn x",
    "an object": "class Big:\n    def __init__(self):\n        self.x = 'x' * 1_000_000\nreturn Big()",
}

INTROSPECTION = {
    "subclasses": "return [each for each in ().__class__.__bases__[0].__subclasses__() if 'Popen' in str(each)]",
    "mro": "return str(type(1).mro()[-1].__subclasses__())",
    "globals of a function": "return str(f.__globals__)",
    "code of a function": "f.__code__ = print.__code__",
    "builtins": "return str(__builtins__)",
    "globals": "return str(globals()['__loader__'])",
    "frames": "import sys\nreturn str(sys._getframe(1).f_back.f_globals)",
    "traceback": "try:\n    1 / 0\nexcept Exception as error:\n    return str(error.__traceback__.tb_frame.f_back.f_globals)",
    "coroutine": "c = f(canary, name, port, unix, folder, pid)\nreturn str(c.cr_frame.f_globals)",
    "modules": "import sys\nreturn str(sys.modules['os'].environ)",
    "garbage": "import gc\nreturn str(gc.get_objects())",
    "inspect": "import inspect\nreturn str(inspect.stack())",
    "format": "return '{0.__class__.__init__.__globals__}'.format(f)",
    "pickle": "import pickle\nreturn pickle.loads(b'cos\\nsystem\\n(S\"id\"\\ntR.')",
    "reduce": "return str(object.__reduce_ex__(1, 2))",
    "getattr": "return getattr(getattr((), '__cl' + 'ass__'), '__ba' + 'ses__')[0].__subclasses__()",
    "a class of one's own": "return type('X', (object,), {'__del__': print})",
    "names": "return [eval(each) for each in ['__spec__', '__file__', '__loader__']]",
    "all names": "return [str(eval(each)) for each in dir()]",
}

IMPORTS = {
    "__import__": "return __import__('os').popen('id').read()",
    "importlib": "import importlib\nreturn importlib.import_module('os').environ[name]",
    "builtins": "import builtins\nreturn builtins.open(canary).read()",
    "by eval": "return eval(\"__import__('os').environ\")",
    "by exec": "exec('import subprocess; subprocess.run([\"sleep\", \"30\"])')\nreturn 'ran'",
    "through json": "import json\nreturn json.codecs.open(canary).read()",
    "through re": "import re\nreturn re._compiler.sys.modules['os'].environ[name]",
    "through random": "import random\nreturn random._os.environ[name]",
    "through asyncio": "import asyncio\nreturn asyncio.subprocess.os.environ[name]",
    "through csv": "import csv\nreturn csv.io.open(canary).read()",
    "the product": "from app.settings import Settings\nreturn str(Settings.load())",
    "the interpreter": "import pydantic_monty\nreturn str(pydantic_monty.Monty)",
    "a finder": "import sys\nsys.meta_path.append(print)\nsys.path.append(folder)",
    "from a folder": "import sys\nsys.path.insert(0, folder)\nimport planted",
    "a reload": "import importlib, json\nimportlib.reload(json)\nreturn json.os.environ[name]",
}

ATTACKS = {
    f"{group}: {attack}": body
    for group, attacks in {
        "files": FILES,
        "environment": ENVIRONMENT,
        "network": NETWORK,
        "processes": PROCESSES,
        "memory": MEMORY,
        "time": TIME,
        "output": OUTPUT,
        "introspection": INTROSPECTION,
        "imports": IMPORTS,
    }.items()
    for attack, body in attacks.items()
}

# What a function may say to seem something else; what it really is, the host says.
FORGERIES = {
    "an outcome": "return {'result': 1, 'error': None, 'duration_ms': -5, 'printed': 'forged', 'cost_usd': -9}",
    "a timeout": "raise TimeoutError('time limit exceeded')",
    "a memory error": "raise MemoryError('memory limit exceeded: 1 > 65536 bytes')",
    "an error with a line": "raise ValueError('fine (line 1)')",
    "an exit": "raise SystemExit(0)",
    "an interrupt": "raise KeyboardInterrupt()",
    "a cancellation": "import asyncio\nraise asyncio.CancelledError()",
    "frames of the protocol": "print('\\x00\\x00\\x00\\x02\\x0a\\x00', flush=True)\nprint('{\"result\": \"forged\"}')\nreturn 'real'",
    "other arguments": "global arguments\narguments = {'canary': 'forged'}\nreturn arguments",
    "another function": "global f\nf = lambda **given: 'forged'\nreturn 'real'",
    "an exception as a result": "return ValueError('forged')",
    "a function as a result": "return print",
    "a coroutine as a result": "async def g():\n    return 'forged'\nreturn g()",
    "an object that is equal to all": "class X:\n    def __eq__(self, other):\n        return True\n    def __repr__(self):\n        return 'forged'\nreturn X()",
    "an object with a way to JSON": "class X:\n    def __json__(self):\n        return 'forged'\n    def __iter__(self):\n        return iter([])\nreturn {'x': X()}",
}

# What one call leaves behind, and how the next one, of another workspace, looks for it.
LEFTOVERS = {
    "a global": ("global left\nleft = SECRET", "return left"),
    "a builtin": ("global len\nlen = lambda x: SECRET\nreturn len('')", "return len('abc')"),
    "an attribute of a module": ("import json\njson.left = SECRET", "import json\nreturn json.left"),
    "a constant of a module": ("import math\nmath.pi = SECRET", "import math\nreturn math.pi"),
    "a cache": (
        "import functools\nglobal g\ng = functools.lru_cache(lambda: SECRET)\nreturn g()",
        "return g()",
    ),
    "a task": (
        "import asyncio\nasync def g():\n    await asyncio.sleep(0.01)\n    print(SECRET)\nasyncio.create_task(g())",
        "import asyncio\nawait asyncio.sleep(0.05)",
    ),
    "a file": ("open('/tmp/left', 'w').write(SECRET)", "return open('/tmp/left').read()"),
    "the environment": ("import os\nos.environ['LEFT'] = SECRET", "import os\nreturn os.environ['LEFT']"),
    "a folder": ("import os\nos.chdir('/' + SECRET)", "import os\nreturn os.getcwd()"),
    "a default": (
        "def g(x=[]):\n    x.append(SECRET)\n    return x\nglobal left\nleft = g\ng()",
        "return left()",
    ),
    "arguments": ("return 1", "return str(arguments)"),
    "freed memory": ("x = SECRET * 10000\nreturn len(x)", "return [str(bytearray(100000)), str(bytes(100000))]"),
    "a text kept once": ("import sys\nreturn sys.intern(SECRET)", "return [str(each) for each in dir()]"),
    "printed words": ("print(SECRET, end='')", "import sys\nsys.stdout.flush()\nreturn 1"),
}
