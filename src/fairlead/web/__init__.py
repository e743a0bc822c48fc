"""The rating application: what a team of raters and a lead use in the browser, and what `fairlead annotate` does from outside.

`app` makes the server, `pages` has its routes, `policy` says who may do what. The work itself is in functions without a web
framework: `people`, `projects`, `importing`, `queue`, `verdicts`, `exporting`. Tables and migrations are in `store.annotation`.
Needs the extra `web`, never torch.
"""
