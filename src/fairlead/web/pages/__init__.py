"""Routes by who uses them: accounts (everybody), rating (raters), lead. A route parses, asks the policy, calls one function, renders."""
