"""The words of Portuguese."""

from vllm_cosyvoice.text.european.languages.words import Counted, Words, denominators, listed, nouns, pairs

PORTUGUESE = Words(
    to="a",
    score="a",
    out_of="de",
    point="ponto",
    at="arroba",
    coins="e",
    signs=pairs(
        "< = menor que; > = maior que; ² = ao quadrado; ³ = ao cubo; x = vezes; "
        "/ = por; - = menos; + = mais; = = é igual a; × = vezes; ÷ = dividido por; § = parágrafo; "
        "± = mais ou menos; ° = graus; ≥ = maior ou igual a; ≤ = menor ou igual a; & = e; № = número"
    ),
    cent=Counted("m", "centavo", "centavos", "centavos"),
    days=pairs("seg = segunda; ter = terça; qua = quarta; qui = quinta; sex = sexta; sáb = sábado; dom = domingo"),
    and_a_half="{} e meio",
    half=("meio", "meia"),
    fractions=denominators(
        "meio/meios",
        "terço/terços",
        "quarto/quartos",
        "quinto/quintos",
        "sexto/sextos",
        "sétimo/sétimos",
        "oitavo/oitavos",
        "nono/nonos",
        "décimo/décimos",
    ),
    units=nouns("""
        %: m, por cento
        °C ºC ℃: m, grau, graus
        km/h: m, quilômetro por hora, quilômetros por hora
        m/s: m, metro por segundo, metros por segundo
        km²: m, quilômetro quadrado, quilômetros quadrados
        m²: m, metro quadrado, metros quadrados
        m³: m, metro cúbico, metros cúbicos
        km: m, quilômetro, quilômetros
        m: m, metro, metros
        cm: m, centímetro, centímetros
        mm: m, milímetro, milímetros
        kg: m, quilo, quilos
        g: m, grama, gramas
        mg: m, miligrama, miligramas
        l L: m, litro, litros
        ml: m, mililitro, mililitros
        kWh: m, quilowatt-hora, quilowatts-hora
        W: m, watt, watts
        V: m, volt, volts
        GB: m, gigabyte, gigabytes
        MB: m, megabyte, megabytes
        min: m, minuto, minutos
        s: m, segundo, segundos
        cm²: m, centímetro quadrado, centímetros quadrados
        cm³: m, centímetro cúbico, centímetros cúbicos
        ha: m, hectare, hectares
        t: f, tonelada, toneladas
        cl: m, centilitro, centilitros
        xíc.: f, xícara, xícaras
        kcal: f, quilocaloria, quilocalorias
        kW: m, quilowatt, quilowatts
        Hz: m, hertz
        GHz: m, gigahertz
        TB: m, terabyte, terabytes
    """),
    money=nouns("""
        R$ BRL real reais: m, real, reais
        € EUR euro euros: m, euro, euros
        US$ $ USD: m, dólar, dólares
        £ GBP: f, libra, libras
        ¥: m, iene, ienes
    """),
    hour=Counted("f", "hora", "horas", "horas"),
    clock="e",
    months=listed("janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro"),
    month_joint=" de ",
    abbreviations=pairs(
        "séc. = século; "
        "Sr. = senhor; Sra. = senhora; Srta. = senhorita; Dr. = doutor; Dra. = doutora; Prof. = professor; "
        "Profa. = professora; nº = número; n.º = número; Nº = número; D. = dom; etc. = et cetera; "
        "p. ex. = por exemplo; pág. = página; Av. = avenida; a.C. = antes de Cristo; d.C. = depois de Cristo; "
        "tel. = telefone; aprox. = aproximadamente; máx. = máximo; mín. = mínimo; cap. = capítulo; art. = artigo; "
        "R. = rua"
    ),
    not_nouns="e ou a de do da em com é são para por que o os as ao mais",
)
