"""The words of Spanish."""

from vllm_cosyvoice.text.european.languages.words import Counted, Words, denominators, listed, nouns, pairs

SPANISH = Words(
    to="a",
    score="a",
    out_of="de",
    point="punto",
    at="arroba",
    coins="con",
    clock="y",
    signs=pairs(
        "< = menor que; > = mayor que; ² = al cuadrado; ³ = al cubo; x = veces; "
        "/ = por; - = menos; + = más; = = es igual a; × = por; ÷ = entre; § = sección; ± = más menos; "
        "° = grados; ≥ = mayor o igual que; ≤ = menor o igual que; & = y; № = número"
    ),
    cent=Counted("m", "céntimo", "céntimos", "céntimos"),
    days=pairs(
        "lun = lunes; mar = martes; mié = miércoles; jue = jueves; vie = viernes; sáb = sábado; dom = domingo; "
        "L = lunes; V = viernes"
    ),
    and_a_half="{} y medio",
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
        cm²: m, centímetro cuadrado, centímetros cuadrados
        cm³: m, centímetro cúbico, centímetros cúbicos
        ha: f, hectárea, hectáreas
        t: f, tonelada, toneladas
        cl: m, centilitro, centilitros
        cda. cdas.: f, cucharada, cucharadas
        cdta. cdtas. cdita. cditas.: f, cucharadita, cucharaditas
        kcal: f, kilocaloría, kilocalorías
        kW: m, kilovatio, kilovatios
        Hz: m, hercio, hercios
        GHz: m, gigahercio, gigahercios
        TB: m, terabyte, terabytes
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
        "Dª. = doña; Dª = doña; a. m. = de la mañana; a.m. = de la mañana; p. m. = de la tarde; "
        "p.m. = de la tarde; C/ = calle; av. = avenida; avda. = avenida; "
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
