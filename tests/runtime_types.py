"""The checker of annotations at run time; like type checkers, it lets an int stand for a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
