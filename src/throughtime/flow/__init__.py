"""How far back the error of a recurrent network reaches, and why: measurements and a verdict; nothing here draws.

    d loss_t / d s_{t-k} = (d loss_t / d s_t) J_t J_{t-1} ... J_{t-k+1},    J_t = d s_t / d s_{t-1}

s_t is the whole state after step t: of an LSTM h and c, of several layers all of them. Its norm vanishes
or explodes: Hochreiter (1991), Bengio, Simard and Frasconi (1994) and Pascanu, Mikolov and Bengio (2013).
"""

from throughtime.flow.dynamics import lyapunov, singular_values
from throughtime.flow.error import FLOOR, LEFT, Decay, ErrorByLag
from throughtime.flow.measuring import error_by_lag, measure, probe
from throughtime.flow.result import Activity, Clipping, Flow, Gate, Kept, Spectrum, UnitsOverTime, clipping
from throughtime.flow.saliency import saliency
from throughtime.flow.spectra import spectra
from throughtime.flow.units import units_over_time

__all__ = [
    "FLOOR",
    "LEFT",
    "Activity",
    "Clipping",
    "Decay",
    "ErrorByLag",
    "Flow",
    "Gate",
    "Kept",
    "Spectrum",
    "UnitsOverTime",
    "clipping",
    "error_by_lag",
    "lyapunov",
    "measure",
    "probe",
    "saliency",
    "singular_values",
    "spectra",
    "units_over_time",
]
