"""Plots of data, training and networks by matplotlib, which the extra ``plots`` installs.

Every function returns a figure. A notebook shows it, ``figure.savefig("name.png")`` writes it, and
``plot_history(history, figure=plt.figure())`` draws in a window of pyplot, or in one of its subfigures.
"""

from funcnn.plots.decision_boundary import plot_decision_boundary as plot_decision_boundary
from funcnn.plots.history import plot_history as plot_history
from funcnn.plots.kernels import plot_kernels as plot_kernels
from funcnn.plots.network import draw_network as draw_network
from funcnn.plots.signals import plot_signals as plot_signals
