"""The words of German."""

from vllm_cosyvoice.text.european.languages.words import Counted, Words, denominators, listed, nouns, pairs

GERMAN = Words(
    to="bis",
    score="zu",
    out_of="von",
    point="Punkt",
    at="at",
    coins="",
    signs=pairs(
        "< = kleiner als; > = größer als; ² = hoch zwei; ³ = hoch drei; x = mal; "
        "/ = pro; - = minus; + = plus; = = gleich; × = mal; ÷ = geteilt durch; § = Paragraf; "
        "± = plus minus; "
        "° = Grad; ≥ = größer gleich; ≤ = kleiner gleich; & = und; № = Nummer"
    ),
    cent=Counted("m", "Cent", "Cent", "Cent"),
    days=pairs("Mo = Montag; Di = Dienstag; Mi = Mittwoch; Do = Donnerstag; Fr = Freitag; Sa = Samstag; So = Sonntag"),
    and_a_half="{}einhalb",
    one_and_a_half="eineinhalb",
    half=("ein halber", "eine halbe"),
    fractions=denominators(
        "halb/halbe", "Drittel", "Viertel", "Fünftel", "Sechstel", "Siebtel", "Achtel", "Neuntel", "Zehntel"
    ),
    hour=Counted("n", "Uhr", "Uhr", "Uhr"),
    units=nouns("""
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
        cm²: m, Quadratzentimeter
        cm³: m, Kubikzentimeter
        ha: m, Hektar
        t: f, Tonne, Tonnen
        cl: m, Zentiliter
        dl: m, Deziliter
        EL: m, Esslöffel
        TL: m, Teelöffel
        Pck. Pck Pkg.: n, Päckchen
        Stk. Stk: n, Stück
        kcal: f, Kilokalorie, Kilokalorien
        kJ: n, Kilojoule
        Hz: n, Hertz
        kHz: n, Kilohertz
        MHz: n, Megahertz
        hPa: n, Hektopascal
        mA: n, Milliampere
        kB: n, Kilobyte
        µg: n, Mikrogramm
    """),
    money=nouns("""
        € EUR Euro: m, Euro
        $ USD Dollar: m, Dollar
        £ GBP: n, Pfund
        ct Cent: m, Cent
        CHF Franken: m, Franken
        ¥: m, Yen
    """),
    months=listed("Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
    abbreviations=pairs(
        "u. U. = unter Umständen; u.U. = unter Umständen; z. T. = zum Teil; z.T. = zum Teil; "
        "u. v. m. = und vieles mehr; u.v.m. = und vieles mehr; i. A. = im Auftrag; i.A. = im Auftrag; Bd. = Band; "
        "Hrsg. = Herausgeber; Fa. = Firma; bspw. = beispielsweise; zzgl. = zuzüglich; exkl. = exklusive; "
        "mind. = mindestens; Art. = Artikel; Ziff. = Ziffer; Abb. = Abbildung; Anm. = Anmerkung; "
        "Hbf. = Hauptbahnhof; v. a. = vor allem; v.a. = vor allem; s. o. = siehe oben; s. u. = siehe unten; "
        "gem. = gemäß; Co. = Co; "
        "z.B. = zum Beispiel; z. B. = zum Beispiel; d.h. = das heißt; d. h. = das heißt; ca. = circa; "
        "Dr. = Doktor; Prof. = Professor; Nr. = Nummer; bzw. = beziehungsweise; usw. = und so weiter; "
        "u.a. = unter anderem; u. a. = unter anderem; St. = Sankt; Mio. = Millionen; Mrd. = Milliarden; "
        "Tel. = Telefon; Hr. = Herr; Fr. = Frau; Abs. = Absatz; inkl. = inklusive; evtl. = eventuell; "
        "ggf. = gegebenenfalls; vgl. = vergleiche; etc. = et cetera; Jh. = Jahrhundert; v. Chr. = vor Christus; "
        "n. Chr. = nach Christus; S. = Seite; Str. = Straße; Kap. = Kapitel; geb. = geboren; max. = maximal; "
        "min. = minimal; o. Ä. = oder Ähnliches; o.Ä. = oder Ähnliches; sog. = sogenannte; "
        "i.d.R. = in der Regel; i. d. R. = in der Regel"
    ),
)
