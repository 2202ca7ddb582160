"""The words of Dutch."""

from vllm_cosyvoice.text.european.languages.words import Counted, Words, denominators, listed, nouns, pairs

DUTCH = Words(
    to="tot",
    score="tegen",
    out_of="van de",
    point="punt",
    at="apenstaartje",
    coins="",
    signs=pairs(
        "/ = per; - = min; + = plus; = = is; × = keer; ÷ = gedeeld door; § = paragraaf; ± = plus of min; "
        "° = graden; ≥ = groter dan of gelijk aan; ≤ = kleiner dan of gelijk aan; & = en; № = nummer"
    ),
    half=("een half", "een halve"),
    fractions=denominators(
        "half/halve", "derde", "vierde", "vijfde", "zesde", "zevende", "achtste", "negende", "tiende"
    ),
    hour=Counted("n", "uur", "uur", "uur"),
    units=nouns("""
        %: n, procent
        °C ℃: m, graad, graden
        km/u km/h: m, kilometer per uur
        km²: m, vierkante kilometer
        m²: m, vierkante meter
        km: m, kilometer
        m: m, meter
        cm: m, centimeter
        mm: m, millimeter
        kg: m, kilo
        g: n, gram
        l L: m, liter
        ml: m, milliliter
    """),
    money=nouns("""
        € EUR euro: m, euro
        $ USD: m, dollar
        £ GBP: n, pond
    """),
    months=listed("januari februari maart april mei juni juli augustus september oktober november december"),
    abbreviations=pairs(
        "bijv. = bijvoorbeeld; d.w.z. = dat wil zeggen; dhr. = de heer; mevr. = mevrouw; nr. = nummer; "
        "enz. = enzovoort; ca. = circa; dr. = dokter; prof. = professor; blz. = bladzijde; o.a. = onder andere; "
        "m.b.t. = met betrekking tot; t/m = tot en met; jl. = jongstleden; mln. = miljoen; mld. = miljard"
    ),
    not_nouns="en of tot van in op is zijn te de het",
)
