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
        "< = kleiner dan; > = groter dan; ² = kwadraat; ³ = tot de derde; x = keer; "
        "/ = per; - = min; + = plus; = = is; × = keer; ÷ = gedeeld door; § = paragraaf; ± = plus of min; "
        "° = graden; ≥ = groter dan of gelijk aan; ≤ = kleiner dan of gelijk aan; & = en; № = nummer"
    ),
    cent=Counted("m", "cent", "cent", "cent"),
    days=pairs("ma = maandag; di = dinsdag; wo = woensdag; do = donderdag; vr = vrijdag; za = zaterdag; zo = zondag"),
    and_a_half="{} en een half",
    one_and_a_half="anderhalf",
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
        cm²: m, vierkante centimeter
        m³: m, kubieke meter
        ha: f, hectare
        t: f, ton
        mg: n, milligram
        cl: m, centiliter
        dl: m, deciliter
        el: m, eetlepel, eetlepels
        tl: m, theelepel, theelepels
        kWh: n, kilowattuur
        kW: m, kilowatt
        W: m, watt
        GB: m, gigabyte
        MB: m, megabyte
        min.: f, minuut, minuten
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
