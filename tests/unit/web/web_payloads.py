# ruff: noqa: E501 - payloads are as they are
"""Texts that would run, load or rename something if a page let them."""

PAYLOADS = (
    "<script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", "<svg onload=window.pwned=1>", "<svg><script>window.pwned=1</script></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>", "<body onload=window.pwned=1>", "<details open ontoggle=window.pwned=1>x</details>",
    "<input autofocus onfocus=window.pwned=1>", "<video><source onerror=window.pwned=1></video>", "<audio src=x onerror=window.pwned=1>",
    "<marquee onstart=window.pwned=1>x</marquee>", "<object data='javascript:window.pwned=1'></object>", "<embed src='javascript:window.pwned=1'>",
    "<a href='javascript:window.pwned=1'>x</a>", "<a href='data:text/html,<script>window.pwned=1</script>'>x</a>", "<form action='javascript:window.pwned=1'><button>x</button></form>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.pwned=1&gt;'></table></mtext></math>",
    "<math href='javascript:window.pwned=1'>x</math>", "<math><maction actiontype='statusline#http://x' xlink:href='javascript:window.pwned=1'>x</maction></math>",
    "<style>@import 'https://tracker.example/x.css'</style>", "<link rel=stylesheet href='https://tracker.example/x.css'>", "<meta http-equiv=refresh content='0;url=https://tracker.example/'>",
    "<base href='https://tracker.example/'>", "<img src='https://tracker.example/p.png'>", "<image href='https://tracker.example/p.png'>",
    "[x](javascript:window.pwned=1)", "[x](JaVaScRiPt:window.pwned=1)", "[x](&#106;avascript:window.pwned=1)", "[x](data:text/html;base64,PHNjcmlwdD53aW5kb3cucHduZWQ9MTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox)", "![x](https://tracker.example/p.png)", "![x](javascript:window.pwned=1)", "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
    "![x](x 'onerror=window.pwned=1')", "[x](x \"onmouseover=window.pwned=1\")", "<javascript:window.pwned=1>", "<https://tracker.example/\" onmouseover=\"window.pwned=1>",
    "[x]: javascript:window.pwned=1\n\n[x]", "[x\" onmouseover=window.pwned=1](https://x.example/)", "![\" onerror=window.pwned=1 x=\"](x)",
    "```\"><script>window.pwned=1</script>\ncode\n```", "```html\n<script>window.pwned=1</script>\n```", "`<script>window.pwned=1</script>`",
    "```x onmouseover=window.pwned=1\ncode\n```", "$\\href{javascript:window.pwned=1}{x}$", "$\\url{javascript:window.pwned=1}$",
    "$\\includegraphics{https://tracker.example/p.png}$", "$\\text{<img src=x onerror=window.pwned=1>}$", "$$\\unicode{<script>window.pwned=1</script>}$$",
    "$\\style{color:red;background:url(https://tracker.example/)}{x}$", "$\\class{\" onmouseover=\"window.pwned=1}{x}$", "$\\color{\"><script>window.pwned=1</script>}x$",
    "</textarea><script>window.pwned=1</script>", "</script><script>window.pwned=1</script>", "</title><script>window.pwned=1</script>", "--><script>window.pwned=1</script>",
    "\"><script>window.pwned=1</script>", "' onmouseover=window.pwned=1 x='", "{{ 7*7 }}{% raw %}", "${window.pwned=1}", "<x onclick=window.pwned=1>x</x>",
    "<noscript><p title='</noscript><img src=x onerror=window.pwned=1>'>", "<template><script>window.pwned=1</script></template>", "<xmp><script>window.pwned=1</script></xmp>",
    "<svg><a xlink:href='javascript:window.pwned=1'><text>x</text></a></svg>", "<svg><animate onbegin=window.pwned=1 attributeName=x></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x onload=window.pwned=1>#x'></svg>", "<select><noembed></select><script>window.pwned=1</script>",
    "<img src=\"x` `<script>window.pwned=1</script>\"` `>", "\u2028<script>window.pwned=1</script>\u2029", "\ufeff<script>window.pwned=1</script>",
    "<scr\u200bipt>window.pwned=1</scr\u200bipt>", "&lt;script&gt;window.pwned=1&lt;/script&gt;", "&#60;script&#62;window.pwned=1&#60;/script&#62;",
    "| <script>window.pwned=1</script> |\n|---|\n| <img src=x onerror=window.pwned=1> |", "> <script>window.pwned=1</script>", "- <img src=x onerror=window.pwned=1>",
    "<div id=stage>clobbered</div><form id=skip></form><img name=csrf>", "=1+cmd|' /C calc'!A0", "x" * 5000 + "<script>window.pwned=1</script>",
)  # fmt: skip
"""At least sixty; each is put into every field that a model, a rater, a lead or an importer controls."""
