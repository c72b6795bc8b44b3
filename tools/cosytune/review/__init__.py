"""data/all and data/quarantine -> a local page to review clips by ear -> corrected lines of text, decisions.json.

    python -m cosytune.review egs/demo

`clips` says what there is, `edits` changes it under the recipe's lock, `app` puts both behind HTTP, and `guard` lets
nobody in but the browser that was given the address.
"""
