"""The words of Italian."""

from vllm_cosyvoice.text.european.languages.words import Counted, Words, denominators, listed, nouns, pairs

ITALIAN = Words(
    to="a",
    score="a",
    out_of="su",
    point="punto",
    at="chiocciola",
    coins="e",
    clock="e",
    signs=pairs(
        "< = minore di; > = maggiore di; ² = al quadrato; ³ = al cubo; x = volte; "
        "/ = al; - = meno; + = più; = = uguale; × = per; ÷ = diviso; § = paragrafo; ± = più o meno; "
        "° = gradi; ≥ = maggiore o uguale a; ≤ = minore o uguale a; & = e; № = numero"
    ),
    cent=Counted("m", "centesimo", "centesimi", "centesimi"),
    days=pairs(
        "lun = lunedì; mar = martedì; mer = mercoledì; gio = giovedì; ven = venerdì; sab = sabato; dom = domenica"
    ),
    and_a_half="{} e mezzo",
    half=("mezzo", "mezza"),
    fractions=denominators(
        "mezzo/mezzi",
        "terzo/terzi",
        "quarto/quarti",
        "quinto/quinti",
        "sesto/sesti",
        "settimo/settimi",
        "ottavo/ottavi",
        "nono/noni",
        "decimo/decimi",
    ),
    units=nouns("""
        %: m, per cento
        °C ℃: m, grado, gradi
        km/h: m, chilometro orario, chilometri orari
        m/s: m, metro al secondo, metri al secondo
        km²: m, chilometro quadrato, chilometri quadrati
        m² mq: m, metro quadrato, metri quadrati
        m³: m, metro cubo, metri cubi
        km: m, chilometro, chilometri
        m: m, metro, metri
        cm: m, centimetro, centimetri
        mm: m, millimetro, millimetri
        kg: m, chilo, chili
        g: m, grammo, grammi
        mg: m, milligrammo, milligrammi
        l L: m, litro, litri
        ml: m, millilitro, millilitri
        kWh: m, chilowattora
        W: m, watt
        V: m, volt
        GB: m, gigabyte
        MB: m, megabyte
        h: f, ora, ore
        min: m, minuto, minuti
        s: m, secondo, secondi
        cm²: m, centimetro quadrato, centimetri quadrati
        cm³: m, centimetro cubo, centimetri cubi
        mc: m, metro cubo, metri cubi
        ha: m, ettaro, ettari
        t: f, tonnellata, tonnellate
        cl: m, centilitro, centilitri
        dl: m, decilitro, decilitri
        hl: m, ettolitro, ettolitri
        kcal: f, chilocaloria, chilocalorie
        kW: m, chilowatt
        Hz: m, hertz
        GHz: m, gigahertz
        TB: m, terabyte
    """),
    money=nouns("""
        € EUR euro: m, euro
        $ USD: m, dollaro, dollari
        £ GBP: f, sterlina, sterline
        CHF: m, franco svizzero, franchi svizzeri
        ¥: m, yen
    """),
    months=listed("gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre"),
    abbreviations=pairs(
        "Sig. = signor; Sig.ra = signora; Sig.na = signorina; Dott. = dottor; Dott.ssa = dottoressa; Dr. = dottor; "
        "Prof. = professor; Prof.ssa = professoressa; n. = numero; N. = numero; n° = numero; ecc. = eccetera; "
        "pag. = pagina; pagg. = pagine; a.C. = avanti Cristo; d.C. = dopo Cristo; es. = esempio; tel. = telefono; "
        "cap. = capitolo; art. = articolo; ca. = circa; etc. = eccetera; max. = massimo; min. = minimo; "
        "Ing. = ingegner; Avv. = avvocato; S. = San"
    ),
    not_nouns="e o a di del della in su con è sono per che il la i le gli al da ed",
)
