"""Demonstrations: a person writes the reply, a second one reviews it, and what is accepted goes to supervised fine-tuning.

    open -> written -> accepted
              ^  |
              |  v
            returned (to its author, with a reason)

`actions` is what people do (events), `derive` what follows from it, `desk` who gets what, `showing` what stands on the screen.
"""
