"""What prompts of the suite say: so many tool calls one after the other, then an answer of so many words.

name=c7 tools=note,pay words=12 pause=0.02
"""

import re

SAYING = re.compile(r"name=(\S+) tools=(\S*) words=(\d+) pause=([\d.]+)")
