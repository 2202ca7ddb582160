"""The words of each European language for signs, units, money, fractions, months and abbreviations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counted:
    """The forms of a noun after a number, and its gender: "m", "f" or "n"."""

    gender: str
    one: str
    many: str
    few: str  # after 2, 3 and 4 in Russian; elsewhere as `many`


def _nouns(table: str) -> dict[str, Counted]:
    """Read lines of "signs: gender, one, many, few"; without further forms, they are all the same."""
    nouns = {}
    for line in table.strip().splitlines():
        signs, _, forms = line.strip().partition(": ")
        gender, one, *others = forms.split(", ")
        many = others[0] if others else one
        noun = Counted(gender, one, many, others[1] if len(others) > 1 else many)
        nouns.update(dict.fromkeys(signs.split(), noun))
    return nouns


def _pairs(table: str) -> dict[str, str]:
    """Read "written = spoken" pairs, separated by semicolons."""
    return dict(pair.strip().split(" = ") for pair in table.split(";"))


@dataclass(frozen=True)
class Words:
    """What one language says for what stands beside numbers."""

    to: str  # between the ends of a range
    score: str  # between the numbers of a score or a ratio
    out_of: str
    signs: dict[str, str]
    point: str  # of a version
    at: str
    coins: str  # between an amount and its coins: "con" in "tres euros con cincuenta"
    half: tuple[str, str]  # before a masculine and a feminine noun
    fractions: dict[int, tuple[str, str]]  # denominators: the forms after one and after other numbers
    units: dict[str, Counted]
    money: dict[str, Counted]
    abbreviations: dict[str, str]
    hour: Counted | None = None  # said between hours and minutes
    clock: str = ""  # said between hours and minutes otherwise
    months: tuple[str, ...] = ()
    month_joint: str = " "  # between day, month and year
    not_nouns: str = ""  # words after a number that it does not count


def _denominators(*names: str) -> dict[int, tuple[str, str]]:
    """Names of 2, 3, 4 …, each "one/many"."""
    pairs = (name.split("/") for name in names)
    return {place: (pair[0], pair[-1]) for place, pair in enumerate(pairs, 2)}


WORDS = {
    "de": Words(
        to="bis", score="zu", out_of="von", point="Punkt", at="at", coins="",
        signs=_pairs("/ = pro; - = minus; + = plus; = = gleich; × = mal; ÷ = geteilt durch; § = Paragraf; "
                     "± = plus minus; "
                     "° = Grad; ≥ = größer gleich; ≤ = kleiner gleich; & = und; № = Nummer"),
        half=("ein halber", "eine halbe"),
        fractions=_denominators("halb/halbe", "Drittel", "Viertel", "Fünftel", "Sechstel", "Siebtel", "Achtel",
                                "Neuntel", "Zehntel"),
        hour=Counted("n", "Uhr", "Uhr", "Uhr"),
        units=_nouns("""
            %: n, Prozent
            °C ℃: n, Grad Celsius
            °F: n, Grad Fahrenheit
            km/h: m, Kilometer pro Stunde
            m/s: m, Meter pro Sekunde
            km²: m, Quadratkilometer
            m² qm: m, Quadratmeter
            m³: m, Kubikmeter
            km: m, Kilometer
            m: m, Meter
            cm: m, Zentimeter
            mm: m, Millimeter
            kg: n, Kilogramm
            g: n, Gramm
            mg: n, Milligramm
            l L: m, Liter
            ml: m, Milliliter
            kWh: f, Kilowattstunde, Kilowattstunden
            kW: n, Kilowatt
            W: n, Watt
            V: n, Volt
            GHz: n, Gigahertz
            GB: n, Gigabyte
            MB: n, Megabyte
            TB: n, Terabyte
            Std. Std h: f, Stunde, Stunden
            Min. min: f, Minute, Minuten
            Sek. s: f, Sekunde, Sekunden
            Mio. Mio: f, Million, Millionen
            Mrd. Mrd: f, Milliarde, Milliarden
            Tsd.: n, tausend
        """),
        money=_nouns("""
            € EUR Euro: m, Euro
            $ USD Dollar: m, Dollar
            £ GBP: n, Pfund
            CHF Franken: m, Franken
            ¥: m, Yen
        """),
        months=("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober",
                "November", "Dezember"),
        abbreviations=_pairs(
            "z.B. = zum Beispiel; z. B. = zum Beispiel; d.h. = das heißt; d. h. = das heißt; ca. = circa; "
            "Dr. = Doktor; Prof. = Professor; Nr. = Nummer; bzw. = beziehungsweise; usw. = und so weiter; "
            "u.a. = unter anderem; u. a. = unter anderem; St. = Sankt; Mio. = Millionen; Mrd. = Milliarden; "
            "Tel. = Telefon; Hr. = Herr; Fr. = Frau; Abs. = Absatz; inkl. = inklusive; evtl. = eventuell; "
            "ggf. = gegebenenfalls; vgl. = vergleiche; etc. = et cetera; Jh. = Jahrhundert; v. Chr. = vor Christus; "
            "n. Chr. = nach Christus; S. = Seite; Str. = Straße; Kap. = Kapitel; geb. = geboren; max. = maximal; "
            "min. = minimal; o. Ä. = oder Ähnliches; o.Ä. = oder Ähnliches; sog. = sogenannte; "
            "i.d.R. = in der Regel; i. d. R. = in der Regel"
        ),
    ),
    "fr": Words(
        to="à", score="à", out_of="sur", point="point", at="arobase", coins="",
        signs=_pairs("/ = par; - = moins; + = plus; = = égale; × = fois; ÷ = divisé par; § = paragraphe; "
                     "± = plus ou moins; "
                     "° = degrés; ≥ = supérieur ou égal à; ≤ = inférieur ou égal à; & = et; № = numéro"),
        half=("un demi", "une demi"),
        fractions=_denominators("demi/demis", "tiers", "quart/quarts", "cinquième/cinquièmes", "sixième/sixièmes",
                                "septième/septièmes", "huitième/huitièmes", "neuvième/neuvièmes",
                                "dixième/dixièmes"),
        hour=Counted("f", "heure", "heures", "heures"),
        units=_nouns("""
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
        """),
        money=_nouns("""
            € EUR euro euros: m, euro, euros
            $ USD: m, dollar, dollars
            £ GBP: f, livre, livres
            CHF: m, franc suisse, francs suisses
            ¥: m, yen, yens
        """),
        months=("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre",
                "novembre", "décembre"),
        abbreviations=_pairs(
            "M. = Monsieur; Mme = Madame; Mlle = Mademoiselle; MM. = Messieurs; Dr = Docteur; Dr. = Docteur; "
            "Pr = Professeur; n° = numéro; N° = numéro; nº = numéro; p. = page; etc. = et cetera; "
            "av. J.-C. = avant Jésus-Christ; apr. J.-C. = après Jésus-Christ; c.-à-d. = c'est-à-dire; "
            "p. ex. = par exemple; art. = article; tél. = téléphone; env. = environ; bd = boulevard; chap. = chapitre; "
            "St = Saint; Ste = Sainte; max. = maximum; min. = minimum; M€ = millions d'euros; Md€ = milliards d'euros"
        ),
        not_nouns="et ou à de du des en sur dans est sont au pour par le la les avec",
    ),
    "es": Words(
        to="a", score="a", out_of="de", point="punto", at="arroba", coins="con", clock="y",
        signs=_pairs("/ = por; - = menos; + = más; = = es igual a; × = por; ÷ = entre; § = sección; ± = más menos; "
                     "° = grados; ≥ = mayor o igual que; ≤ = menor o igual que; & = y; № = número"),
        half=("medio", "media"),
        fractions=_denominators("medio/medios", "tercio/tercios", "cuarto/cuartos", "quinto/quintos", "sexto/sextos",
                                "séptimo/séptimos", "octavo/octavos", "noveno/novenos", "décimo/décimos"),
        units=_nouns("""
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
        money=_nouns("""
            € EUR euro euros: m, euro, euros
            US$ $ USD: m, dólar, dólares
            £ GBP: f, libra, libras
            MXN: m, peso, pesos
            ¥: m, yen, yenes
        """),
        months=("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre",
                "noviembre", "diciembre"),
        month_joint=" de ",
        abbreviations=_pairs(
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
    ),
    "it": Words(
        to="a", score="a", out_of="su", point="punto", at="chiocciola", coins="e", clock="e",
        signs=_pairs("/ = al; - = meno; + = più; = = uguale; × = per; ÷ = diviso; § = paragrafo; ± = più o meno; "
                     "° = gradi; ≥ = maggiore o uguale a; ≤ = minore o uguale a; & = e; № = numero"),
        half=("mezzo", "mezza"),
        fractions=_denominators("mezzo/mezzi", "terzo/terzi", "quarto/quarti", "quinto/quinti", "sesto/sesti",
                                "settimo/settimi", "ottavo/ottavi", "nono/noni", "decimo/decimi"),
        units=_nouns("""
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
        """),
        money=_nouns("""
            € EUR euro: m, euro
            $ USD: m, dollaro, dollari
            £ GBP: f, sterlina, sterline
            CHF: m, franco svizzero, franchi svizzeri
            ¥: m, yen
        """),
        months=("gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno", "luglio", "agosto", "settembre",
                "ottobre", "novembre", "dicembre"),
        abbreviations=_pairs(
            "Sig. = signor; Sig.ra = signora; Sig.na = signorina; Dott. = dottor; Dott.ssa = dottoressa; Dr. = dottor; "
            "Prof. = professor; Prof.ssa = professoressa; n. = numero; N. = numero; n° = numero; ecc. = eccetera; "
            "pag. = pagina; pagg. = pagine; a.C. = avanti Cristo; d.C. = dopo Cristo; es. = esempio; tel. = telefono; "
            "cap. = capitolo; art. = articolo; ca. = circa; etc. = eccetera; max. = massimo; min. = minimo; "
            "Ing. = ingegner; Avv. = avvocato; S. = San"
        ),
        not_nouns="e o a di del della in su con è sono per che il la i le gli al da ed",
    ),
    "pt": Words(
        to="a", score="a", out_of="de", point="ponto", at="arroba", coins="e",
        signs=_pairs("/ = por; - = menos; + = mais; = = é igual a; × = vezes; ÷ = dividido por; § = parágrafo; "
                     "± = mais ou menos; ° = graus; ≥ = maior ou igual a; ≤ = menor ou igual a; & = e; № = número"),
        half=("meio", "meia"),
        fractions=_denominators("meio/meios", "terço/terços", "quarto/quartos", "quinto/quintos", "sexto/sextos",
                                "sétimo/sétimos", "oitavo/oitavos", "nono/nonos", "décimo/décimos"),
        units=_nouns("""
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
        """),
        money=_nouns("""
            R$ BRL real reais: m, real, reais
            € EUR euro euros: m, euro, euros
            US$ $ USD: m, dólar, dólares
            £ GBP: f, libra, libras
            ¥: m, iene, ienes
        """),
        hour=Counted("f", "hora", "horas", "horas"),
        clock="e",
        months=("janeiro", "fevereiro", "março", "abril", "maio", "junho", "julho", "agosto", "setembro", "outubro",
                "novembro", "dezembro"),
        month_joint=" de ",
        abbreviations=_pairs(
            "Sr. = senhor; Sra. = senhora; Srta. = senhorita; Dr. = doutor; Dra. = doutora; Prof. = professor; "
            "Profa. = professora; nº = número; n.º = número; Nº = número; D. = dom; etc. = et cetera; "
            "p. ex. = por exemplo; pág. = página; Av. = avenida; a.C. = antes de Cristo; d.C. = depois de Cristo; "
            "tel. = telefone; aprox. = aproximadamente; máx. = máximo; mín. = mínimo; cap. = capítulo; art. = artigo; "
            "R. = rua"
        ),
        not_nouns="e ou a de do da em com é são para por que o os as ao mais",
    ),
    "ru": Words(
        to="", score="", out_of="из", point="точка", at="собака", coins="",
        signs=_pairs("/ = за; - = минус; + = плюс; = = равно; × = умножить на; ÷ = разделить на; § = параграф; "
                     "± = плюс-минус; ° = градусов; ≥ = больше или равно; ≤ = меньше или равно; & = и; № = номер"),
        half=("половина", "половина"),
        fractions=_denominators("вторая/вторых", "треть/трети", "четверть/четверти", "пятая/пятых", "шестая/шестых",
                                "седьмая/седьмых", "восьмая/восьмых", "девятая/девятых", "десятая/десятых"),
        units=_nouns("""
            %: m, процент, процентов, процента
            °C ℃: m, градус, градусов, градуса
            км/ч km/h: m, километр в час, километров в час, километра в час
            м/с: m, метр в секунду, метров в секунду, метра в секунду
            км²: m, квадратный километр, квадратных километров, квадратных километра
            м² кв.м: m, квадратный метр, квадратных метров, квадратных метра
            м³: m, кубический метр, кубических метров, кубических метра
            км km: m, километр, километров, километра
            м m: m, метр, метров, метра
            см cm: m, сантиметр, сантиметров, сантиметра
            мм mm: m, миллиметр, миллиметров, миллиметра
            кг kg: m, килограмм, килограммов, килограмма
            г: m, грамм, граммов, грамма
            мг: m, миллиграмм, миллиграммов, миллиграмма
            л: m, литр, литров, литра
            мл: m, миллилитр, миллилитров, миллилитра
            Вт: m, ватт, ватт, ватта
            В: m, вольт, вольт, вольта
            ГБ: m, гигабайт, гигабайт, гигабайта
            МБ: m, мегабайт, мегабайт, мегабайта
            ч: m, час, часов, часа
            мин. мин: f, минута, минут, минуты
            сек. сек: f, секунда, секунд, секунды
            тыс. тыс: f, тысяча, тысяч, тысячи
            млн. млн: m, миллион, миллионов, миллиона
            млрд. млрд: m, миллиард, миллиардов, миллиарда
        """),
        money=_nouns("""
            ₽ руб. руб RUB: m, рубль, рублей, рубля
            € EUR: m, евро
            $ USD: m, доллар, долларов, доллара
            £ GBP: m, фунт, фунтов, фунта
            ¥: f, иена, иен, иены
        """),
        months=("января", "февраля", "марта", "апреля", "мая", "июня", "июля", "августа", "сентября", "октября",
                "ноября", "декабря"),
        abbreviations=_pairs(
            "т.е. = то есть; т. е. = то есть; т.д. = так далее; т. д. = так далее; т.п. = тому подобное; "
            "т. п. = тому подобное; т.к. = так как; т. к. = так как; др. = другие; г. = город; ул. = улица; д. = дом; "
            "кв. = квартира; пр. = проспект; стр. = страница; гл. = глава; им. = имени; руб. = рублей; тыс. = тысяч; "
            "тел. = телефон; н.э. = нашей эры; н. э. = нашей эры; напр. = например; проф. = профессор"
        ),
        not_nouns="и или из по до в на с к от это не за для",
    ),
    "nl": Words(
        to="tot", score="tegen", out_of="van de", point="punt", at="apenstaartje", coins="",
        signs=_pairs("/ = per; - = min; + = plus; = = is; × = keer; ÷ = gedeeld door; § = paragraaf; ± = plus of min; "
                     "° = graden; ≥ = groter dan of gelijk aan; ≤ = kleiner dan of gelijk aan; & = en; № = nummer"),
        half=("een half", "een halve"),
        fractions=_denominators("half/halve", "derde", "vierde", "vijfde", "zesde", "zevende", "achtste", "negende",
                                "tiende"),
        hour=Counted("n", "uur", "uur", "uur"),
        units=_nouns("""
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
        money=_nouns("""
            € EUR euro: m, euro
            $ USD: m, dollar
            £ GBP: n, pond
        """),
        months=("januari", "februari", "maart", "april", "mei", "juni", "juli", "augustus", "september", "oktober",
                "november", "december"),
        abbreviations=_pairs(
            "bijv. = bijvoorbeeld; d.w.z. = dat wil zeggen; dhr. = de heer; mevr. = mevrouw; nr. = nummer; "
            "enz. = enzovoort; ca. = circa; dr. = dokter; prof. = professor; blz. = bladzijde; o.a. = onder andere; "
            "m.b.t. = met betrekking tot; t/m = tot en met; jl. = jongstleden; mln. = miljoen; mld. = miljard"
        ),
        not_nouns="en of tot van in op is zijn te de het",
    ),
}  # fmt: skip
