"""Plain training steps, as most public code has them: what our own steps are measured against.

One module per framework, in place of the `train` of an implementation, whose `checkpoint` and
`state` take its states too. They train dcgan64 with loss bce, in whatever layout, losses, optimizer
and order of passes is usual there; `CONVENTIONS` and `GENERATOR_BATCH`, the field of the spec, say
where that departs from the spec, so that the equivalence gate holds for them too.
"""
