"""Reads Chinese text: years, telephone numbers, units, dots and dashes; wetext reads the remaining numbers."""

import re
import string
import unicodedata
from decimal import Decimal

from vllm_cosyvoice.text import chinese_units
from vllm_cosyvoice.text.abbreviations import UNFINISHED
from vllm_cosyvoice.text.chinese_units import AMOUNT, HAN
from vllm_cosyvoice.text.file_names import EXTENSION
from vllm_cosyvoice.text.grammar import read_out
from vllm_cosyvoice.text.hidden import HIDDEN
from vllm_cosyvoice.text.roman import MORE_LETTERS, NUMERAL, value
from vllm_cosyvoice.text.rules import Rule, Rules

NUMERALS = str.maketrans("0123456789", "零一二三四五六七八九")
AS_CODE = str.maketrans("0123456789", "零幺二三四五六七八九")  # 幺 for one, which does not sound like seven
WIDE = str.maketrans(
    {chr(ord(sign) + 0xFEE0): sign for sign in string.digits + string.ascii_letters + "%"}
    | {"∶": ":", "．": ".", "＝": "=", "＋": "+", "µ": "μ"}
)
DASH = r"\s?[-–—~～‐至到]{1,2}\s?"
ALONE = r"(?<![\d.,/:-])"
ENDED = r"(?![\d/:-]|[.,]\d)"


def _digits(text: str) -> str:
    return text.translate(NUMERALS)


def _code(text: str) -> str:
    return text.translate(AS_CODE)


def _telephone(digits: str) -> str:
    """Digits in the groups of the text; mobile numbers are read as in wetext."""
    groups = re.findall(r"\d+", digits)
    read = _digits if digits.startswith("0") else _code
    return "，".join(map(read, groups))


# Marks of the items of a list: a pause follows each, and precedes one inside a line.
ORDER = "一二三四五六七八九十"
ITEM_START = r"(?:^|(?<=[。；;，：:！？!?、]))\s*"
ITEM = re.compile(
    rf"(?<=[\w”》）)])\s*(?:[（(](\d{{1,2}}|[{ORDER}])[）)]|(?<![\d.])(\d{{1,2}}|(?<=\s)[B-H])[.．、])\s*"
    rf"(?=[A-Za-z“《{HAN}])"
)
LIST_RULES: list[Rule] = [
    (re.compile("[⑴-⒛㈠-㈩]"), lambda match: unicodedata.normalize("NFKC", match[0])),
    (re.compile(rf"(?<=[\w”》）)])\s+(?=[{ORDER}]{{1,3}}、)"), "，"),
    (re.compile(rf"(?<=\w)\s+(?=[（(](?:\d{{1,2}}|[{ORDER}]{{1,3}})[）)]\w)"), "，"),
    (re.compile(rf"{ITEM_START}[（(](\d{{1,2}}|[{ORDER}]{{1,3}})[）)]\s*(?=[\w“《])"), r"\1、"),
    (re.compile(rf"{ITEM_START}(\d{{1,2}}|[A-H]|[{ORDER}])[.．]\s*(?=[{HAN}])"), r"\1、"),
    (re.compile(rf"(?:^|(?<=[。；;]))\s*(\d{{1,2}}|[a-hA-H])[)）]\s*(?=[A-Za-z{HAN}])"), r"\1、"),
    (re.compile(r"(?:^|(?<=[：:。]))\s*[1一A]、.*"), lambda match: _items(match[0])),
]


def _items(text: str) -> str:
    """Mark the further items of a list that begins `text`; what does not continue its numbers is no mark."""
    last = 1

    def mark(match: re.Match[str]) -> str:
        nonlocal last
        name = match[1] or match[2]
        place = int(name) if name.isdecimal() else max(ORDER.find(name), "ABCDEFGH".find(name)) + 1
        if place not in (1, last + 1):
            return match[0]
        last = place
        return f"，{name}、"

    return ITEM.sub(mark, text)


WRITING_RULES: list[Rule] = [  # how numbers are written
    (re.compile(r"(?<=\d)－(?=\d)"), "-"),
    (re.compile(r"(?<=\d)：(?=\d)"), ":"),
    (
        re.compile(r"((?:日期|时间|生日)[是为：:]?\s?)((?:19|20)\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])(?!\d)"),
        r"\1\2年\3月\4日",
    ),
    (re.compile(r"(?<!\d)0(?=[1-9][月日号])"), ""),
    (
        re.compile(r"(?<=[日号午晚上晨早])\s?(\d{1,2}):([0-5]\d)(?![\d:])"),
        lambda match: f"{int(match[1])}点" + ("" if match[2] == "00" else f"{match[2]}分"),
    ),
    (re.compile(r"(?<![A-Za-z\d])(\d{1,3})(?:st|nd|rd|th)(?![A-Za-z])"), r"第\1"),
    (re.compile(r"(?<![A-Za-z\d])([BCGOP])2(?=[BCGOP](?![A-Za-z\d]))"), r"\1 to "),
    (re.compile(r"(?<![A-Za-z])(L[vV]|[Vv]er|E[pP])\.\s?(?=\d)"), r"\1 "),
    (re.compile(r"(?<![\d.,])\d{1,3}(?: 000)+(?![\d,.])"), lambda match: match[0].replace(" ", "")),
    (re.compile(r"第(\d+)/(\d+)页"), r"第\1页，共\2页"),
    (re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])"), lambda match: match[0].replace(",", "")),
    (re.compile(r"−(?=\d)"), "-"),
    (re.compile(r"^\s*(\d{1,2})[.．]\s*(?=[^\d\s])"), r"\1、"),
    (re.compile(r"(?<![\d.])((?:19|20)\d\d)\.(\d{1,2})\.(\d{1,2})(?![\d.])"), r"\1年\2月\3日"),
    (
        re.compile(rf"(?<![\d.])((?:19|20)\d\d)\.(\d{{1,2}}){DASH}((?:19|20)\d\d)\.(\d{{1,2}})(?![\d.])"),
        r"\1年\2月到\3年\4月",
    ),
    (
        re.compile(rf"(?<![\d.])(1?\d)\.([1-3]?\d){DASH}(1?\d)\.([1-3]?\d)(?=放假|假期|休|期间|活动)"),
        r"\1月\2日到\3月\4日",
    ),
    (
        re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})(?=\s?(?:[上下]午|[早晚]上|[中正]午|凌晨|傍晚|[（(]?(?:周|星期)))"),
        r"\1月\2日",
    ),
    (re.compile(r"(?<!\d)((?:1[89]|20)\d0)s(?![A-Za-z])"), lambda match: _digits(match[1]) + "年代"),
    (
        re.compile(r"(?<![\d.])([vV]?)(\d+(?:\.\d+){2}|\d+(?:\.\d+){4,})(?!\.?\d)"),
        lambda match: match[1] + "点".join(map(_version_part, match[2].split("."))),
    ),
]


def _version_part(digits: str) -> str:
    return _digits(digits) if len(digits) == 1 or digits[0] == "0" else read_out(digits, "zh")


# Addresses and names of files: dots, signs and digits are read one by one.
SPELLED_SIGNS = str.maketrans({".": "点", "@": "艾特", "_": "下划线", "/": "斜杠", "?": "问号", "=": "等于", "&": "和"})
ADDRESS_RULES: list[Rule] = [
    (re.compile(r"https?://"), ""),
    (
        re.compile(
            r"(?<![A-Za-z\d.+_-])[A-Za-z\d.+_-]+@[A-Za-z\d-]+(?:\.[A-Za-z\d-]+)+|\bwww\.[A-Za-z\d./?=&_-]*[A-Za-z\d]"
            rf"|(?<![A-Za-z\d.+_-])[A-Za-z\d_-]+(?:\.[A-Za-z\d_]+)*\.{EXTENSION}(?![A-Za-z\d])",
            re.ASCII,
        ),
        lambda match: _digits(match[0].translate(SPELLED_SIGNS)),
    ),
    (re.compile(rf"@(?=[{HAN}])"), "艾特"),
    (re.compile(rf"(?<![CF])#+(?=[{HAN}])|(?<=[{HAN}])#"), ""),
]

RULERS = (
    "亨利|路易|伊丽莎白|查理|查尔斯|拿破仑|爱德华|乔治|腓力|教皇|本笃|保罗|保禄|威廉|尼古拉|彼得|叶卡捷琳娜|理查"
    "|理查德|詹姆斯|腓特烈|卡洛斯|费利佩"
)
ROMAN_RULES: list[Rule] = [
    (re.compile(rf"({RULERS})([Ⅰ-Ⅻ]+)"), lambda match: match[1] + unicodedata.normalize("NFKC", match[2])),
    (re.compile(rf"({RULERS})({NUMERAL})(?:世)?(?![A-Za-z])"), lambda match: f"{match[1]}{value(match[2])}世"),
    (re.compile("[Ⅰ-Ⅻ]+"), lambda match: value(match[0])),
    (re.compile(rf"(?<![A-Za-z])({NUMERAL})(?=[期章级类型度卷部幕册篇])"), lambda match: value(match[1])),
    (re.compile(rf"(?<=[{HAN}])({MORE_LETTERS})(?![A-Za-z])"), lambda match: value(match[1])),
]

# Numbers that are identifiers: of telephones, rooms, people.
NUMBERED = (
    "编号|编码|学号|工号|房号|卡号|账号|帐号|单号|订单号?|座号|证号|身份证号?码?|邮编|邮政编码|密码|验证码|校验码|状态码|错误码|邀请码|兑换码|激活码|提取码|条码|尾号|号码|代码|代号|批号|序列号|流水号"
    "|车牌号?|门牌号?|QQ号?|群号?|群聊|会员号|取件码|端口号?|房间号码?|准考证号?|股票代码|取票号|電話|號碼|密碼|編號|訂單號?|帳號|驗證碼|航班号?|班次|区号|分机号?"
)
CALLED = "电话号?码?|手机号?码?|热线|客服|拨打|致电|传真|座机|专线|打给?|呼叫|電話號?碼?|手機|熱線|客服|致電|傳真|專線"
ROOM = "室(?!外|内|温)|号?房|房间|病房|教室|会议室|宿舍|寝室|包厢|包间|办公室|病室"


def _part(digits: str) -> str:
    """A part of the name of a standard: "5009.3" → "五零零九点三"."""
    return _digits(digits).replace(".", "点").replace("/", " ")


STANDARD = r"(?:GB|GBZ|ISO|IEC|IEEE|DB\d\d|JGJ|JTG|HJ|YY|QB|SH|SY|DL|NY|CJJ|CECS|ASTM|EN|DIN)(?:/[A-Z]{1,3})?"
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
CODE_RULES: list[Rule] = [
    (
        re.compile(
            r"(?<![A-Za-z\d])((?:DB\d\d|[A-Z]{2,5})(?:/[A-Z]{1,3})?)[ -]?(\d+(?:\.\d+)?)\s?([-—–:])\s?"
            r"((?:19|20)\d\d)(?![\d-])"
        ),
        lambda match: _part(match[1]) + _part(match[2]) + ("，" if match[3] == ":" else "杠") + _digits(match[4]),
    ),
    (
        re.compile(rf"(?<![A-Za-z\d])({STANDARD})[ -]?(\d{{3,6}}(?:\.\d+)?)(?!\d)"),
        lambda match: match[1] + _part(match[2]),
    ),
    (
        re.compile(r"(?<![A-Za-z\d])([A-Z]{1,6})((?:-\d+){2,})(?![\d-])"),
        lambda match: match[1] + _digits(match[2]).replace("-", "杠"),
    ),
    (
        re.compile(r"(?<=[AHB]股)\d{6}(?!\d)|(?<=[（(])[036]\d{5}(?=[）)](?!元)|\.S[HZ])"),
        lambda match: _digits(match[0]),
    ),
    (
        re.compile(rf"(?<=[{PROVINCES}])([A-Z])[·・ ]?([A-Z\d]{{5,6}})(?![A-Za-z\d])"),
        lambda match: match[1] + _digits(match[2]),
    ),
    (
        re.compile(r"(?<=ISBN)[:： ]?\s?(\d[\d-]{8,15}[\dX])"),
        lambda match: "，".join(map(_digits, match[1].split("-"))),
    ),
    (re.compile(r"(?<![\d.])(localhost|\d+(?:\.\d+){3}):(\d{2,5})(?!\d)"), lambda m: f"{m[1]}冒号{_digits(m[2])}"),
    (re.compile(r"(?<![\d.])(\d+(?:\.\d+){3})/(?=\d{1,2}(?!\d))"), r"\1斜杠"),
    (
        re.compile(r"(?<![A-Za-z\d])[A-F\d]{2}(?::[A-F\d]{2}){5}(?![A-Za-z\d:])"),
        lambda match: _digits(match[0].replace(":", "，")),
    ),
    (re.compile(r"(?<!\d)(\d{3,6})\*{2,}(\d{3,4})(?!\d)"), lambda match: f"{_code(match[1])}星号{_code(match[2])}"),
    (
        re.compile(r"(?<![\d+])\+(?!86)(\d{1,3}(?:[- ][(（]?\d{2,5}[)）]?){2,4})(?!\d)"),
        lambda match: "加" + _telephone(match[1]),
    ),
    (re.compile(r"(?<![\d-])00\d\d(?:-\d+)+"), lambda match: _telephone(match[0])),
    (
        re.compile(r"(?:^|(?<=[，。！？!,\s哈]))(?:6{3,}|5{3,}|23{2,})(?=$|[，。！？!,\s啊啦了])"),  # as in a chat
        lambda match: _digits(match[0]),
    ),
    (
        re.compile(rf"(?<!\d)(?:19|20)\d\d(?=[级届款]|[{HAN}]{{0,4}}(?:奥运|亚运|世界杯|冬奥|残奥|世博|欧洲杯))"),
        lambda match: _digits(match[0]),
    ),
    (re.compile(r"(?<![\d.])(2160|1440|1080|720|480|360)(?=[pPi](?![A-Za-z]))"), lambda match: _digits(match[0])),
    (
        re.compile(r"(?<![A-Za-z.])([A-Z])\.(\d{3,})(?![\d.])"),
        lambda match: f"{match[1]}点{_digits(match[2])}",
    ),
    (
        re.compile(r"(?<=[表图式])\s?(\d{1,2})[-–](\d{1,2})(?![\d-]|[篇名个人种张次位天年月日分份款条件小周倍])"),
        r"\1杠\2",
    ),
    (
        re.compile(r"(?<!\d)(?<!\d )(?:[（(]0\d{2,3}[）)]\s?|0\d{2,3}[- ])(?:\d{7,8}|\d{3,4}[- ]\d{4})(?!\d)"),
        lambda match: _telephone(re.sub(r"[^\d]", "-", match[0].strip("(（"))),
    ),
    (
        re.compile(r"(?<!\d)(?<!\d )0\d{2,3}[- ]\d{3,4}[ -]\d{4}(?!\d)"),
        lambda match: _telephone(match[0].replace(" ", "-")),
    ),
    (re.compile(r"(?<=转)(?:分机)?(\d{2,5})(?!\d)"), lambda match: _digits(match[0])),
    (re.compile(r"(?<!\d)0\d{2,3}-\d{3,4}-\d{4}(?!\d)"), lambda match: _telephone(match[0])),
    (re.compile(r"\+86[- ]?(?=1[3-9]\d)"), "加八六，"),
    (re.compile(r"(?<!\d)1[3-9]\d[- ]\d{4}[- ]\d{4}(?!\d)"), lambda match: _telephone(match[0])),
    (re.compile(r"(?<!\d)[48]00[- ](?:\d{3}[- ]\d{4}|\d{4}[- ]\d{3}|\d{7})(?!\d)"), lambda match: _telephone(match[0])),
    (
        re.compile(r"(?<!\d)\d{4}(?:[ -]\d{4}){3}(?: \d{3})?(?!\d)"),
        lambda match: "，".join(map(_digits, re.findall(r"\d+", match[0]))),
    ),
    (
        re.compile(rf"((?:{CALLED})(?:[是为：:]|\s)*)(\d{{4}} \d{{4}})(?![\d-])"),
        lambda match: match[1] + _telephone(match[2].replace(" ", "-")),
    ),
    (
        re.compile(rf"((?:{CALLED})(?:[是为：:]|\s)*)(\d{{4,8}}){ENDED}(?![年月日元块个人次分秒])"),
        lambda match: match[1] + (_code(match[2]) if len(match[2]) < 7 else _digits(match[2])),
    ),
    (
        re.compile(rf"((?:{NUMBERED})(?:[是为：:]|\s)*[A-Za-z]*-?)(\d+(?:-\d+)*){ENDED}"),
        lambda match: match[1] + "，".join(map(_digits, match[2].split("-"))),
    ),
    (re.compile(r"(?<!\d)(\d)米(\d\d)(?![\d米厘分])"), lambda match: f"{match[1]}米{_digits(match[2])}"),
    (re.compile(r"(?<![A-Za-z\d])[A-Za-z]+_\d+(?![A-Za-z\d])"), lambda match: _digits(match[0].replace("_", "下划线"))),
    (
        re.compile(r"(?<![\d-])(\d{1,2})-(\d{1,2})-(\d{3,4})(?![\d-])"),
        lambda match: f"{match[1]}杠{match[2]}杠{_digits(match[3])}",
    ),
    (
        re.compile(r"(?<![\d.-])(\d{3,4})-(\d{3,4})(?=室|号?房)"),
        lambda match: f"{_digits(match[1])}到{_digits(match[2])}",
    ),
    (re.compile(r"(?<![A-Za-z\d])([A-Z])(\d{1,3})[-~～–](?=\1\d)"), r"\1\2到"),
    (
        re.compile(r"(?<![\d.-])(\d{1,3})-(\d{3,4})(?=室|号?房)"),
        lambda match: f"{match[1]}杠{_digits(match[2])}",
    ),
    (re.compile(r"(?<=[座楼层栋幢元])\d{3,4}(?![\d.,年元人个平米㎡万亿块%])"), lambda match: _digits(match[0])),
    (
        re.compile(
            r"(?<![A-Za-z\d])(?!USD|RMB|CNY|EUR|HKD|JPY|GBP|VIP)([A-Z]{1,4})[ -]?(\d{3,4})"
            r"(?![\d.,:/%A-Za-z年月日个元万亿人名位张米度次])"
        ),
        lambda match: match[1] + _digits(match[2]),
    ),
    (re.compile(r"(?<![A-Za-z\d])([A-Z]{2})(\d{3,4})(?=次?航班)"), lambda match: match[1] + _digits(match[2])),
    (re.compile(r"(?:(?<=波音)|(?<=空客))A?\d{3}(?![\d-])"), lambda match: _digits(match[0])),
    (
        re.compile(r"(?<![\d.])\d{3}(?=路(?!程|灯|段|口|费)|国道|省道|县道)|(?<=[国省县]道)\d{3}"),
        lambda m: _digits(m[0]),
    ),
    (
        re.compile(
            r"(?<![\d.])(?:985|211|996|618|404|502|503|500(?=错误|报错))(?=高校|大学|院校|工程|工作制|大促|活动|购物节|错误|报错|页面)"
        ),
        lambda match: _digits(match[0]),
    ),
    (
        re.compile(
            r"(?<![\d.])(\d{1,2})[·.](\d{1,2})(?=事件|事变|假期|小长假|长假|妇女节|劳动节|儿童节|建军节|国庆节|青年节|黄金周|国庆|大促|晚会|购物节|事故|惨案|地震)"
        ),
        lambda match: _digits(match[1].replace("10", "十").replace("12", "十二") + match[2]),
    ),
    (re.compile(r"(?<![\d.])(\d{1,2})·(\d{1,2})(?!\d)"), lambda match: _digits(match[1] + match[2])),
    (re.compile(rf"(?<![\d.])(\d{{3,5}})(?={ROOM})"), lambda match: _digits(match[1])),
    (
        re.compile(r"((?:房间|房号|教室|会议室|宿舍|病房|包厢)[是为：:]?)(\d{3,5})(?![\d人个平米元])"),
        lambda match: match[1] + _digits(match[2]),
    ),
    (
        re.compile(r"(?<![\dA-Za-z])([GDCZTKSYL])(\d{1,4})(?:/(\d{1,4}))?(?=次|列车|高铁|动车)"),
        lambda match: match[1] + _train(match[2]) + (f"、{_train(match[3])}" if match[3] else ""),
    ),
    (re.compile(rf"{ALONE}0\d+{ENDED}(?![年月日号点时分秒])"), lambda match: _digits(match[0])),
    (re.compile(rf"{ALONE}(?!1[3-9]\d{{9}}(?!\d))\d{{10,}}(?:[Xx]\b)?{ENDED}"), lambda match: _digits(match[0])),
]


def _train(number: str) -> str:
    return _digits(number) if len(number) == 1 else _code(number)


# Years of two digits, and hours.
LASTS = "代|前|后|来|间|内|期|以|左右|多|的?历史|的?时间|的?寿命|的?经验|的?工龄|如一日|之|过去|才|就|没|不|[（(]"
DATED = (
    r"(?:出生|生人?|毕业|入学|高考|入伍|入职|参军|结婚|[春夏秋冬初底末]|世界杯|奥运|亚运|欧洲杯|金融|非典|洪水"
    r"|\d{1,2}月|[款版届级]|开始|起)"
)
TIME_RULES: list[Rule] = [
    (
        re.compile(r"(?<=[（(])(1\d{3}|20\d\d)\s?[-–—~～]\s?(1\d{3}|20\d\d)(?=[）)])"),
        lambda match: f"{_digits(match[1])}到{_digits(match[2])}",
    ),
    (
        re.compile(rf"(?<!\d)((?:19|20)?\d\d)(?:{DASH}|/)((?:19|20)?\d\d)(?=学年|财年|赛季|年度)"),
        lambda match: f"{_digits(match[1])}到{_digits(match[2])}",
    ),
    (re.compile(rf"(?<!\d)([089]\d){DASH}(\d\d)年"), lambda match: f"{_digits(match[1])}到{_digits(match[2])}年"),
    (re.compile(rf"(?<![\d.近约过第满了达])(\d\d)年(?={DATED})"), lambda match: _digits(match[1]) + "年"),
    (
        re.compile(rf"(?<![\d.近约过第满了达这共活住等有])(0\d|[89]\d)年(?!{LASTS})"),
        lambda match: _digits(match[1]) + "年",
    ),
    (re.compile(r"(?<!\d)([06-9][05])(?=后(?!来))"), lambda match: _digits(match[1])),
    (re.compile(r"(?<!\d)([0-289]\d)(?=[级届](?:的?学|新生|毕业|校友|本科|研究))"), lambda match: _digits(match[1])),
    (re.compile(r"(?<!\d)2点(?!\d+(?!\d*[分刻]))|(?<!\d)2点(?=[0-5]\d(?![\d倍元米%]))"), "两点"),
    (re.compile(r"(?<=点)2分(?!钟)"), "二分"),
    (re.compile(r"(?<=月)2(?=[日号])|(?<=星期)2(?!\d)|(?<=礼拜)2(?!\d)|(?<=第)2(?!\d)"), "二"),
    (re.compile(r"(?<=点)0([1-9])(?=分)"), lambda match: "零" + _digits(match[1])),
]

# 两, not 二, before what is counted; wetext knows some of these words.
COUNTED = (
    "公斤|千克|克|升|毫升|吨|公里|千米|厘米|毫米|次(?!方|元)|种|倍|年(?!级|班|代)|项|份|杯|碗|瓶|盒|包|袋|片|粒|颗|道|门|首|部|台|辆|条|件|张|本|支|枝|把"
    r"|座|间|家|所|名|批|套|段|篇|句|遍|趟|场|周|棵|顿|根|箱|页(?!码)|步|口|双|对(?!\d)|幅|盘|束|匹|头|扇|封|架|艘|滴|勺|成|折|股|阵|圈|晚|代人|节(?!日)|题|款|轮|局|室(?!外|内)|毛|球|大勺|小勺|茶匙|汤匙|瓣|海里|光年|战(?=\d)|胜|负|張|條|間|雙|塊|點(?!\d)|歲"
)
COUNT_RULES: list[Rule] = [
    (re.compile(r"(?<!\d)2对2(?!\d)"), "二对二"),
    (re.compile(r"(?<![\d.])2(?=手|线城市|维|胎|奶|次元|次方|等|进制|战(?!\d))"), "二"),
    (re.compile(rf"(?<![\d.,:/第星周期点月~～–—到至-])2(?={COUNTED})"), "两"),
    (
        re.compile(r"(?<=[栋幢楼])(\d{1,2})(?=单元)"),
        lambda match: _digits(match[1]) if len(match[1]) == 1 else match[1],
    ),
]

# Ranges, scores, hyphens.
RANGE_RULES: list[Rule] = [
    (re.compile(r"(?<=\d)(?<!\b0)\s?[xX*]\s?(?=\d)|(?<=\d[cmk]m)\s?[xX*]\s?(?=\d)"), "乘"),
    (
        re.compile(
            rf"(?<!\d)((?:19|20)\d\d){DASH}((?:19|20)\d\d)(?![\d-])(?!\s?[=元万亿个人名米步块公斤千克度次件头只])"
        ),
        lambda match: f"{_digits(match[1])}到{_digits(match[2])}",
    ),
    (re.compile(r"(?<![\d.\w])-(\d+)\s?[~～–—]\s?(?=-?\d)"), r"-\1到"),
    (re.compile(rf"(?<![\d.A-Za-z])({AMOUNT})%?{DASH}({AMOUNT})%"), r"\1%到\2%"),
    (
        re.compile(rf"(?<![\d.])({AMOUNT})(℃|°C|[{HAN}]{{1,2}}|[A-Za-zμ/]{{1,6}}[²³]?){DASH}({AMOUNT})(?=\2)"),
        r"\1\2到\3",
    ),
    (re.compile(rf"[$]({AMOUNT}){DASH}[$]?({AMOUNT})"), r"\1到\2美元"),
    (re.compile(rf"[¥￥]({AMOUNT}){DASH}[¥￥]?({AMOUNT})"), r"\1到\2元"),
    (re.compile(r"(?<=\d)\s?[–—～]+\s?(?=\d)"), "~"),
    (
        re.compile(r"(?<![\d-])(\d{3})-(\d{3})(?![\d-])(?=客机|飞机|型|系列)"),
        lambda match: _digits(match[1] + match[2]),
    ),
    (
        re.compile(r"(?<![\d.A-Za-z:/-])(\d{1,3})-(\d{1,3})(?![\d.:/%-])(?!\s?(?:=|等于))"),
        lambda match: _range_or_score(match[1], match[2]),
    ),
    (
        re.compile(rf"(?<![\d.A-Za-z:/-])({AMOUNT})-({AMOUNT})(?![\d.:/%-])(?!\s?(?:=|等于))"),
        lambda match: f"{match[1]}到{match[2]}" if float(match[1]) < float(match[2]) else match[0],
    ),
    (re.compile(r"(?<=[年月日号点时分])\s?[-–—~]\s?(?=\d)"), "到"),
    (re.compile(r"([A-Za-z]-?\d+(?:\.\d+)?)-(?=\d)"), r"\1杠"),
    (re.compile(r"(?<=[A-Za-z])[-‐](\d{4,})(?!\d)"), lambda match: _digits(match[1])),
    (re.compile(r"(?<=[A-Za-z歼轰运苏米])[-‐](?=\d)|(?<=\w)-(?=\d+号)"), ""),
    (re.compile(r"(?<=\d)[-‐](?=[A-Za-z])"), ""),
]


def _range_or_score(first: str, second: str) -> str:
    return f"{first}到{second}" if int(first) < int(second) else f"{first}比{second}"


# Slashes and money.
CURRENCIES = {
    "€": "欧元", "£": "英镑", "$": "美元", "US$": "美元", "HK$": "港元", "NT$": "新台币", "A$": "澳元", "C$": "加元",
    "¥": "元", "￥": "元", "₩": "韩元", "₹": "卢比", "USD": "美元", "EUR": "欧元", "GBP": "英镑", "HKD": "港元",
    "JPY": "日元", "CNY": "元", "RMB": "元",
}  # fmt: skip
CURRENCY = "|".join(re.escape(sign) for sign in sorted(CURRENCIES, key=len, reverse=True))
MONEY_RULES: list[Rule] = [
    (
        re.compile(r"(?<!\d)(\d{2,3})/(\d{2,3})(?=\s?(?:mmHg|毫米汞柱))"),
        lambda match: f"{_amount(match[1])}比{match[2]}",
    ),
    (re.compile(r"(?<![\d/])24/7(?![\d/])(?:小时)?"), "二十四小时七天"),
    (re.compile(r"(?<![\d/])9/11(?![\d/])"), "九一一"),
    (
        re.compile(r"(?<![\d/.])(\d{1,3})/(\d{1,3})(?![\d/.])"),
        lambda match: (
            f"{_denominator(match[2])}分之{match[1]}" if _is_fraction(match) else f"{_amount(match[1])}比{match[2]}"
        ),
    ),
    (
        re.compile(rf"((?:US)?[$])({AMOUNT})([MB])(?![A-Za-z])"),
        lambda match: (
            f"{Decimal(match[2]) * (100 if match[3] == 'M' else 10):f}".removesuffix(".0")
            + ("万" if match[3] == "M" else "亿")
            + CURRENCIES[match[1]]
        ),
    ),
    (
        re.compile(rf"({CURRENCY})\s?({AMOUNT})([万亿千百]*)"),
        lambda match: match[2].removesuffix(".00") + match[3] + CURRENCIES[match[1]],
    ),
    (
        re.compile(r"(?<=[\d万亿])\s?([€£₩₹]|USD|EUR|GBP|HKD|JPY|CNY|RMB)(?![A-Za-z])"),
        lambda match: CURRENCIES[match[1]],
    ),
    (re.compile(r"(?<=[元镑比])(?:元|蚊)"), ""),
    (re.compile(r"(?<=\d)\.00(?=[元美欧港日英])"), ""),
]


def _amount(digits: str) -> str:
    """A number in words, even if wetext would take it for the number of the police (110) or an ambulance (120)."""
    return read_out(f"{digits}米", "zh").removesuffix("米")


def _denominator(digits: str) -> str:
    return "二" if digits == "2" else digits  # wetext would make it 两


def _fraction(whole: str, sign: str) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", sign).split("\u2044")
    return f"{whole}{'又' if whole else ''}{denominator}分之{numerator}".replace("2分", "二分")


def _is_fraction(match: re.Match[str]) -> bool:
    return int(match[1]) < int(match[2])


# Numbers that wetext would take for something else.
PLAIN_RULES: list[Rule] = [
    (re.compile(r"(?<=\d[A-Z])/(?=\d)"), "、"),  # 2.4G/5G
    (re.compile(r"(?<=[A-Z]{2})/(?=\d)"), " "),  # HTTP/2
    (
        re.compile(rf"{ALONE}(1[0-2])\.(\d{{1,2}})(?![\d.:/%‰°℃A-Za-z])"),
        lambda m: f"{read_out(m[1], 'zh')}点{_digits(m[2])}",
    ),
    (
        re.compile(r"(?<![\d.])1[12]\d(?=\s?(?:[比到乘加减等+=<>*/-]|[A-Z]|赫兹))"),
        lambda match: _amount(match[0]),
    ),
]


EQUAL = r"(?=[A-Za-z\d()+×÷*/^.²³√ -]{0,40}=)"
LETTER = "(?<=(?<![A-Za-z])[A-Za-z])"  # a variable
SUPERSCRIPT_DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺"
SUPERSCRIPTS = str.maketrans(SUPERSCRIPT_DIGITS, "0123456789-+")
FORMULA_RULES: list[Rule] = [
    (re.compile(r"(?<=[A-Za-z])\+\+"), "加加"),
    (re.compile(r"(?<=\d)(?:w(?![A-Za-z/])|W(?=\+))"), "万"),
    (
        re.compile(r"(?:(?<=[\d)）])|(?<=(?<![A-Za-z])[A-Za-z])(?![²³](?![⁰-⁹])))(⁻?[⁰¹²³⁴-⁹]+)"),
        lambda match: "^" + match[1].translate(SUPERSCRIPTS),
    ),
    (
        re.compile(r"(?<=[\w)²³])\s*\^\s*[({]?(-?\d+|[a-z](?![A-Za-z]))[)}]?"),
        lambda match: f"的{match[1].replace('-', '负')}次方",
    ),
    (re.compile(r"(?<=次方)\s?[-−]\s?(?=\d)"), "减"),
    (re.compile(rf"(?:(?<=[\d)²³方])|{LETTER})\s?[-−－]\s?(?=[\d(√]|[A-Za-z](?![A-Za-z])){EQUAL}"), "减"),
    (
        re.compile(rf"(?:(?<=[\d)²³方%万亿])|{LETTER})\s?\+\s?(?=[\w(√])|(?<=[A-Za-z])\+(?=\d)|(?<=[\d万亿])\+(?!\+)"),
        "加",
    ),
    (re.compile(r"(?<=[\w)²³])\s?[×✕]\s?(?=[\w(√])"), "乘"),
]

SIGN_RULES: list[Rule] = [
    (re.compile(r"(?<=[周期拜][一二三四五六日天])\s?[-~～—–]\s?(?=周|星期|礼拜)"), "到"),
    (re.compile(r"(\d?)([½⅓⅔¼¾⅕⅖⅗⅘⅙⅛⅜⅝⅞])"), lambda match: _fraction(match[1], match[2])),
    (re.compile(r"√\s*(?=[\w(])"), "根号"),
    (re.compile("∞"), "无穷大"),
    (re.compile(r"\s*(?:→|⇒|➜)\s*"), "，"),
    (re.compile(r"№\s*(?=\d)"), "编号"),
    (re.compile(r"§\s*(?=\d)"), "第"),
    (re.compile(r"(?<=[℃C度%])\s?[~～–—]\s?(?=-?\d|零[上下])"), "到"),
    (re.compile(rf"(?<=[的了吧呢啊哦嘛呀哈啦哟嗯])[~～]+(?=[{HAN}])"), "，"),
    (re.compile(r"[~～]+(?=$|[，。！？…”])"), ""),
    (re.compile(r"\s*(?:<=|≤)\s*"), "小于等于"),
    (re.compile(r"\s*(?:>=|≥)\s*"), "大于等于"),
    (re.compile(r"\s*(?:!=|≠)\s*"), "不等于"),
    (re.compile(r"\s*<\s*(?=[\w-])"), "小于"),
    (re.compile(r"(?:(?<=[\w)%（，：、])|^)\s*(?<![-=])>\s*(?=[\w-])"), "大于"),
    (re.compile(r"(?<=[\w)²³%°])\s*={1,3}\s*(?=[\w(√-])"), "等于"),
    (re.compile(r"\s*±\s*"), "正负"),
    (re.compile(r"\s*≈\s*"), "约等于"),
    (re.compile(r"\s*÷\s*"), "除以"),
    (re.compile(rf"(?<![\d万亿千百][{HAN}])(?<![\d万亿千百][{HAN}]{{2}})(?<=[{HAN}])/(?=[{HAN}])"), "、"),
    (re.compile(r"\s*&\s*"), "和"),
]

# Dots of addresses, initials and abbreviations; the others end a sentence.
KEPT_DOT = "\ue000"  # placeholder for the dot of an abbreviation until the other dots are replaced by 。
DOT_RULES: list[Rule] = [
    (re.compile(r"(?<![A-Za-z.])(Ph|M|a|p)\.(D|m)\."), r"\1\2"),
    (re.compile(r"(?<=[A-Za-z\d])@(?=[A-Za-z\d])"), "艾特"),
    (
        re.compile(r"(?<![A-Za-z.])(?:[A-Z]\.\s?){2,}"),
        lambda match: re.sub(r"[.\s]", "", match[0]) + ("。" if match.end() == len(match.string) else ""),
    ),
    (
        re.compile(rf"(?<![A-Za-z.])({UNFINISHED})\.(?![A-Za-z]\.)(?=\s?[\w{HIDDEN}])"),
        lambda match: match[1].replace(".", KEPT_DOT) + KEPT_DOT,
    ),
    (re.compile(r"(?<=[A-Za-z\d_])\.(?=[A-Za-z\d])"), "点"),
    (re.compile(r"(?:(?<=\s)|(?<=^))\.(?=[A-Za-z])"), "点"),
    (re.compile(r"\.(?=NET(?![A-Za-z]))"), "点"),
    (re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])"), " "),
    (re.compile(r"\.{2,}"), "。"),
    (re.compile(r"\."), "。"),
    (re.compile(KEPT_DOT), "."),
]

WRITTEN_MARKS = str.maketrans({"²": "平方", "³": "立方"})
BRACKETS = str.maketrans("", "", "（）【】`")
TRAILING_COMMAS = re.compile(r"[，,、]+$")
# A space is kept only between two ASCII characters or hidden words that are not spaces themselves.
WORD_MARK = rf"\x00-\x1f\x21-\x7f{HIDDEN}"
LOOSE_SPACE = re.compile(rf"(?<![{WORD_MARK}]) | (?![{WORD_MARK}])")

# wetext is slow, so it gets only the numbers, each with a few adjacent characters that may belong to it.
NEIGHBOUR = rf"[^，。！？；、“”\"\\\n{HIDDEN}]"
UNIT_LETTERS = r"[A-Za-z/%°℃²³]"
NUMBERS = re.compile(
    rf"{NEIGHBOUR}{{0,2}}\d(?:{UNIT_LETTERS}{{0,7}}{NEIGHBOUR}{{0,4}}\d)*{UNIT_LETTERS}{{0,7}}(?:(?!\d){NEIGHBOUR}){{0,4}}"
)
HAS_DIGIT = re.compile(r"\d")
TEXT_RULES = Rules(
    ADDRESS_RULES,
    LIST_RULES,
    ROMAN_RULES,
    chinese_units.SIGN_RULES,
    FORMULA_RULES,
    chinese_units.BARE_RULES,
    SIGN_RULES,
)
NUMBER_RULES = Rules(
    WRITING_RULES,
    CODE_RULES,
    TIME_RULES,
    COUNT_RULES,
    RANGE_RULES,
    MONEY_RULES,
    chinese_units.RULES,
    PLAIN_RULES,
)
END_RULES = Rules(DOT_RULES)


def read(line: str) -> str:
    """Convert one line of text to the Chinese words to speak."""
    line = TEXT_RULES.apply(line.translate(WIDE))
    if HAS_DIGIT.search(line):
        line = NUMBER_RULES.apply(line)
        line = NUMBERS.sub(lambda part: read_out(part[0], "zh"), line)
    line = close_up(END_RULES.apply(line)).translate(WRITTEN_MARKS)
    line = line.replace(" - ", "，").translate(BRACKETS).replace("——", " ")
    return TRAILING_COMMAS.sub("。", line)


def close_up(line: str) -> str:
    """Remove the spaces that Chinese and Japanese do not use."""
    return LOOSE_SPACE.sub("", line)
