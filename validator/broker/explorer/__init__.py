"""The explorer: what a broker holds and what it proves, as pages for people.

    routes     HTTP: parse, read, render, answer; how many pages at once, what is remembered, what browsers may run
    reading    what a page shows, from the broker's parts; every question is bounded
    counting   messages over time
    pace       how much of the machine all of this may take
    look, pieces, picture, pages, proof_path, message_page    HTML, without a clock or a socket
    web        what browsers are given: our checks and the libraries below them

A page of a message brings the bytes that prove it, and the browser checks them itself (``web/checks.js``): nothing on a
page is green unless this browser has found it so. What such a check rests on is said beside it: the page's own program
comes from this broker too, so who wants nobody's word asks with ``logstore verify``.

All pages lie in one folder and link to each other by relative addresses, so that they work below any prefix.

Decided against (docs/decisions): the libraries from npm at set-up (0030); templates (pages of this size read better as
functions that return text, and every string goes through ``look.show``); a client-side application (it would need a
build, an interface to keep, and show nothing where programs may not run).
"""
