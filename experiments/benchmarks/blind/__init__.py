from experiments.benchmarks.blind import attention, convolution, courses, courses_continued, mixed_precision, recurrent

THEMES = (attention, convolution, courses, courses_continued, mixed_precision, recurrent)
BUGS = tuple(case for theme in THEMES for case in theme.BUGS)
RIGHT = tuple(case for theme in THEMES for case in theme.RIGHT)
CASES = (*BUGS, *RIGHT)
