"""Pictures of networks and trainings: each with its numbers, a drawing, a line of words, and itself in a notebook.

    picture.data        what is drawn, as plain arrays and values
    picture.plot(ax)    the drawing on matplotlib's axes, new ones without ax; returns the axes
    picture.reading     what it says, in words
    picture.svg()       the drawing for a page; a notebook shows it by itself

Colours are apart for the colour-blind (Okabe and Ito 2008), dashes and markers for print, heat maps in cividis.
"""

from throughtime.pictures.algorithms import Algorithms
from throughtime.pictures.base import Picture
from throughtime.pictures.classes import Calibration, ClassScores, ConfusionMatrix
from throughtime.pictures.curves import ErrorAgainstLag, LearningCurves
from throughtime.pictures.forecasts import ErrorByHorizon, ForecastFan
from throughtime.pictures.gallery import gallery
from throughtime.pictures.maps import ErrorMap, HiddenUnits, Saliency
from throughtime.pictures.units import Eigenvalues, GateActivity

__all__ = [
    "Algorithms",
    "Calibration",
    "ClassScores",
    "ConfusionMatrix",
    "Eigenvalues",
    "ErrorAgainstLag",
    "ErrorByHorizon",
    "ErrorMap",
    "ForecastFan",
    "GateActivity",
    "HiddenUnits",
    "LearningCurves",
    "Picture",
    "Saliency",
    "gallery",
]
