"""The words of Spanish."""

from vllm_cosyvoice.text.european.languages.words import Words, denominators, listed, nouns, pairs

SPANISH = Words(
    to="a",
    score="a",
    out_of="de",
    point="punto",
    at="arroba",
    coins="con",
    clock="y",
    signs=pairs(
        "/ = por; - = menos; + = más; = = es igual a; × = por; ÷ = entre; § = sección; ± = más menos; "
        "° = grados; ≥ = mayor o igual que; ≤ = menor o igual que; & = y; № = número"
    ),
    half=("medio", "media"),
    fractions=denominators(
        "medio/medios",
        "tercio/tercios",
        "cuarto/cuartos",
        "quinto/quintos",
        "sexto/sextos",
        "séptimo/séptimos",
        "octavo/octavos",
        "noveno/novenos",
        "décimo/décimos",
    ),
    units=nouns("""
        %: m, por ciento
        °C ºC ℃: m, grado, grados
        km/h: m, kilómetro por hora, kilómetros por hora
        m/s: m, metro por segundo, metros por segundo
        km²: m, kilómetro cuadrado, kilómetros cuadrados
        m²: m, metro cuadrado, metros cuadrados
        m³: m, metro cúbico, metros cúbicos
        km: m, kilómetro, kilómetros
        m: m, metro, metros
        cm: m, centímetro, centímetros
        mm: m, milímetro, milímetros
        kg: m, kilo, kilos
        g: m, gramo, gramos
        mg: m, miligramo, miligramos
        l L: m, litro, litros
        ml: m, mililitro, mililitros
        kWh: m, kilovatio hora, kilovatios hora
        W: m, vatio, vatios
        V: m, voltio, voltios
        GB: m, gigabyte, gigabytes
        MB: m, megabyte, megabytes
        h: f, hora, horas
        min: m, minuto, minutos
        s: m, segundo, segundos
    """),
    money=nouns("""
        € EUR euro euros: m, euro, euros
        US$ $ USD: m, dólar, dólares
        £ GBP: f, libra, libras
        MXN: m, peso, pesos
        ¥: m, yen, yenes
    """),
    months=listed("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
    month_joint=" de ",
    abbreviations=pairs(
        "Sr. = señor; Sra. = señora; Srta. = señorita; Dr. = doctor; Dra. = doctora; Prof. = profesor; "
        "n.º = número; nº = número; N.º = número; Nº = número; EE. UU. = Estados Unidos; "
        "EE.UU. = Estados Unidos; "
        "Ud. = usted; Uds. = ustedes; etc. = etcétera; p. ej. = por ejemplo; pág. = página; "
        "págs. = páginas; Avda. = avenida; "
        "Av. = avenida; a. C. = antes de Cristo; d. C. = después de Cristo; tel. = teléfono; "
        "aprox. = aproximadamente; "
        "núm. = número; máx. = máximo; mín. = mínimo; cap. = capítulo; art. = artículo; D. = don; Dña. = doña"
    ),
    not_nouns="y o u a de del en con es son para por que el la los las al más",
)
