"""Plain training steps, as most public code has them: what our own steps are measured against.

One module per framework, each with the same names. They train dcgan64 with loss bce, in whatever
layout, losses, optimizer and order of passes is usual there; `CONVENTIONS` and `spec_of` say
where that departs from the spec, so that the equivalence gate holds for them too.
"""
