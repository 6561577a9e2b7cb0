from experiments.benchmarks.blind import attention, courses, courses_continued

THEMES = (attention, courses, courses_continued)
BUGS = tuple(case for theme in THEMES for case in theme.BUGS)
RIGHT = tuple(case for theme in THEMES for case in theme.RIGHT)
CASES = (*BUGS, *RIGHT)
