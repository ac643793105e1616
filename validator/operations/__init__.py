"""What an operator does besides running the processes: initialise, check, look at evidence, move votes.

Each module is one family of commands: functions that return data, and ``commands.py``, which prints it. They use the
same adapters as the processes (wiring), and never change what is agreed.
"""
