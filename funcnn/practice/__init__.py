"""Exercises in backpropagation, graded by their values, with the cause of what is wrong."""

from funcnn.practice.catalogue import tasks as tasks
from funcnn.practice.grading import Grade as Grade, grade as grade
from funcnn.practice.task import Task as Task
