"""Live conversations as for Anthropic's HH data: a rater writes, the policy answers twice, the rater chooses and goes on from there.

said (event) -> waiting -> Talker samples, outside any transaction -> replied (event): an item with an assignment -> an ordinary vote
                    ^-----------------------------------------------> failed (event), until the rater asks again
"""
