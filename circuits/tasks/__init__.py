"""Paired prompts that ask a model to do one thing, one task a file."""

from circuits.tasks.induction import induction_task, repeated_tokens
from circuits.tasks.registry import TASKS, make_task
from circuits.tasks.task import Task, task_values

__all__ = ["TASKS", "Task", "induction_task", "make_task", "repeated_tokens", "task_values"]
