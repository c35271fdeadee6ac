"""Pulling the plug: commands as processes of their own, killed at every step they take on disk.

``points`` counts the steps inside such a process, ``disk`` knows what a power cut would leave of
them, ``zygote`` and ``commands`` make the processes, ``scenarios`` what they work on, ``verdict``
says what differs from an undisturbed run.
"""
