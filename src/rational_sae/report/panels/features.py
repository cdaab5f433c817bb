"""Single latents before and after: how far each moved, and a browser of their examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.metrics import named
from rational_sae.report.features import ORDERS, browser_data, filters, summary_facts
from rational_sae.report.latent_chart import latent_group
from rational_sae.report.panels.panel import Content, Panel

TEMPLATE = """\
{% if facts %}
{{ show.facts_table("Over all latents", facts) }}
{% endif %}
{% if group %}
<h3>How far the listed latents moved</h3>
{{ show.charts(group) }}
{% endif %}
{% if browser %}
<form class="browser" id="browser" role="search">
<label class="wide">Search <input type="search" name="words" placeholder="words, a promoted token, #latent" \
autocomplete="off" spellcheck="false"></label>
<label>Sort <select name="order">{% for value, words in orders.items() %}<option value="{{ value }}">{{ words }}\
</option>{% endfor %}</select></label>
<label>Show <select name="status"><option value="">all {{ browser.latents | length }}</option>\
{% for value, words in statuses %}<option value="{{ value }}">{{ words }}</option>{% endfor %}</select></label>
</form>
<p class="aside"><output id="found" form="browser"></output> Colour: the activation as a share of the largest in \
that list; underlined: the token for which the example was chosen. Point at a token for its value. Bars: how often \
the latent has which value, from just above 0 to its largest. Promotes, suppresses: the tokens whose logits the \
decoder row raises and lowers most by itself, through the last norm and the unembedding.</p>
<ol class="latents" id="latents"></ol>
<p><button type="button" class="more" id="more" hidden>Show more</button></p>
{% endif %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    browser, facts, group = browser_data(report), summary_facts(report), latent_group(report)
    if not browser and not facts:
        return None
    values = {
        "facts": facts,
        "group": group,
        "browser": browser,
        "orders": ORDERS,
        "statuses": filters(report),
    }
    groups = (group,) if group else ()
    if not browser:
        return Content(values, groups)
    return Content(values, groups, metrics=named("latent"), data={"features": browser}, scripts=("features.js",))


FEATURES = Panel("features-head", "Features before and after", TEMPLATE, content)
