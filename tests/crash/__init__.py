"""The fault harness: writers append numbered lines, processes are killed, paused and cut off, and then every line is counted.

- `sizes`: how much of it, for the short run and for the long one
- `written`: the lines, each a function of its writer and its number, and the rows that they must become
- `writer`: a process that appends and rotates
- `actors`: the processes under test, to be killed at a named step or at any time
- `faults`: what is done to them, by chance and seed
- `stores`: where rows go, and what is in there
- `check`: the comparison, and the table that is printed
"""
