from .losses._joining import Evidence as Evidence
from .losses._passes import Passes as Passes
from .student import refuse_method as refuse_method
from .student import refuse_student as refuse_student
from .train import make_leveller as make_leveller
from .weighted_loss import WeightedLoss as WeightedLoss
from .weighted_loss import refuse_terms as refuse_terms
