"""What training costs in joules: the sensors of each kind of board, and the meter that adds up what they say.

A sensor says where its number comes from and what it covers; where nothing measures, the processor's seconds give an
estimate that is marked as one and states its error. A sensor that vanishes, wraps or says what cannot be is reported,
and never ends a training.
"""
