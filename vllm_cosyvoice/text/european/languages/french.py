"""The words of French."""

from vllm_cosyvoice.text.european.languages.words import Counted, Words, denominators, listed, nouns, pairs

FRENCH = Words(
    to="à",
    score="à",
    out_of="sur",
    point="point",
    at="arobase",
    coins="",
    signs=pairs(
        "< = inférieur à; > = supérieur à; ² = au carré; ³ = au cube; x = fois; "
        "/ = par; - = moins; + = plus; = = égale; × = fois; ÷ = divisé par; § = paragraphe; "
        "± = plus ou moins; "
        "° = degrés; ≥ = supérieur ou égal à; ≤ = inférieur ou égal à; & = et; № = numéro"
    ),
    cent=Counted("m", "centime", "centimes", "centimes"),
    days=pairs("lun = lundi; mar = mardi; mer = mercredi; jeu = jeudi; ven = vendredi; sam = samedi; dim = dimanche"),
    and_a_half="{} et demi",
    half=("un demi", "une demi"),
    fractions=denominators(
        "demi/demis",
        "tiers",
        "quart/quarts",
        "cinquième/cinquièmes",
        "sixième/sixièmes",
        "septième/septièmes",
        "huitième/huitièmes",
        "neuvième/neuvièmes",
        "dixième/dixièmes",
    ),
    hour=Counted("f", "heure", "heures", "heures"),
    units=nouns("""
        %: m, pour cent
        °C ℃: m, degré, degrés
        km/h: m, kilomètre par heure, kilomètres par heure
        m/s: m, mètre par seconde, mètres par seconde
        km²: m, kilomètre carré, kilomètres carrés
        m²: m, mètre carré, mètres carrés
        m³: m, mètre cube, mètres cubes
        km: m, kilomètre, kilomètres
        m: m, mètre, mètres
        cm: m, centimètre, centimètres
        mm: m, millimètre, millimètres
        kg: m, kilo, kilos
        g: m, gramme, grammes
        mg: m, milligramme, milligrammes
        l L: m, litre, litres
        ml mL: m, millilitre, millilitres
        kWh: m, kilowattheure, kilowattheures
        W: m, watt, watts
        V: m, volt, volts
        Go GB: m, gigaoctet, gigaoctets
        Mo MB: m, mégaoctet, mégaoctets
        min: f, minute, minutes
        j: m, jour, jours
        s: f, seconde, secondes
        cm²: m, centimètre carré, centimètres carrés
        cm³: m, centimètre cube, centimètres cubes
        ha: m, hectare, hectares
        t: f, tonne, tonnes
        cl: m, centilitre, centilitres
        dl: m, décilitre, décilitres
        càs c.à.s. c.~à~s. c.~à~soupe cs: f, cuillère à soupe, cuillères à soupe
        càc c.à.c. c.~à~c. c.~à~café cc: f, cuillère à café, cuillères à café
        kcal: f, kilocalorie, kilocalories
        kW: m, kilowatt, kilowatts
        Hz: m, hertz
        MHz: m, mégahertz
        GHz: m, gigahertz
        To TB: m, téraoctet, téraoctets
    """),
    money=nouns("""
        € EUR euro euros: m, euro, euros
        $ USD: m, dollar, dollars
        £ GBP: f, livre, livres
        ct: m, centime, centimes
        CHF: m, franc suisse, francs suisses
        ¥: m, yen, yens
    """),
    months=listed("janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
    abbreviations=pairs(
        "St. = Saint; Ste. = Sainte; Mme. = Madame; St- = Saint-; Ste- = Sainte-; Ste = Sainte; av. = avenue; "
        "RDV = rendez-vous; "
        "M. = Monsieur; Mme = Madame; Mlle = Mademoiselle; MM. = Messieurs; Dr = Docteur; Dr. = Docteur; "
        "Pr = Professeur; n° = numéro; N° = numéro; nº = numéro; p. = page; etc. = et cetera; "
        "av. J.-C. = avant Jésus-Christ; apr. J.-C. = après Jésus-Christ; c.-à-d. = c'est-à-dire; "
        "p. ex. = par exemple; art. = article; tél. = téléphone; env. = environ; bd = boulevard; chap. = chapitre; "
        "St = Saint; Ste = Sainte; max. = maximum; min. = minimum; M€ = millions d'euros; Md€ = milliards d'euros"
    ),
    not_nouns="et ou à de du des en sur dans est sont au pour par le la les avec",
)
