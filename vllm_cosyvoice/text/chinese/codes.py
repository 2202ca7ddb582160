"""Numbers that are identifiers: of telephones, rooms, people."""

import re

from vllm_cosyvoice.text.chinese.numbers import code, digits, telephone
from vllm_cosyvoice.text.chinese.patterns import ALONE, ENDED, HAN
from vllm_cosyvoice.text.rules import Rule

NUMBERED = (
    "编号|编码|学号|工号|房号|卡号|账号|帐号|单号|订单号?|座号|证号|身份证号?码?|邮编|邮政编码|密码|验证码|校验码|状态码|错误码|邀请码|兑换码|激活码|提取码|条码|尾号|号码|代码|代号|批号|序列号|流水号"
    "|车牌号?|门牌号?|QQ号?|群号?|群聊|会员号|取件码|端口号?|房间号码?|准考证号?|股票代码|取票号|電話|號碼|密碼|編號|訂單號?|帳號|驗證碼|航班号?|班次|区号|分机号?"
)
CALLED = "电话号?码?|手机号?码?|热线|客服|拨打|致电|传真|座机|专线|打给?|呼叫|電話號?碼?|手機|熱線|客服|致電|傳真|專線"
ROOM = "室(?!外|内|温)|号?房|房间|病房|教室|会议室|宿舍|寝室|包厢|包间|办公室|病室"
STANDARD = r"(?:GB|GBZ|ISO|IEC|IEEE|DB\d\d|JGJ|JTG|HJ|YY|QB|SH|SY|DL|NY|CJJ|CECS|ASTM|EN|DIN)(?:/[A-Z]{1,3})?"
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
CODE_RULES: list[Rule] = [
    (
        re.compile(
            r"(?<![A-Za-z\d])((?:DB\d\d|[A-Z]{2,5})(?:/[A-Z]{1,3})?)[ -]?(\d+(?:\.\d+)?)\s?([-—–:])\s?"
            r"((?:19|20)\d\d)(?![\d-])"
        ),
        lambda match: _part(match[1]) + _part(match[2]) + ("，" if match[3] == ":" else "杠") + digits(match[4]),
    ),
    (
        re.compile(rf"(?<![A-Za-z\d])({STANDARD})[ -]?(\d{{3,6}}(?:\.\d+)?)(?!\d)"),
        lambda match: match[1] + _part(match[2]),
    ),
    (
        re.compile(r"(?<![A-Za-z\d])([A-Z]{1,6})((?:-\d+){2,})(?![\d-])"),
        lambda match: match[1] + digits(match[2]).replace("-", "杠"),
    ),
    (
        re.compile(r"(?<=[AHB]股)\d{6}(?!\d)|(?<=[（(])[036]\d{5}(?=[）)](?!元)|\.S[HZ])"),
        lambda match: digits(match[0]),
    ),
    (
        re.compile(rf"(?<=[{PROVINCES}])([A-Z])[·・ ]?([A-Z\d]{{5,6}})(?![A-Za-z\d])"),
        lambda match: match[1] + digits(match[2]),
    ),
    (
        re.compile(r"(?<=ISBN)[:： ]?\s?(\d[\d-]{8,15}[\dX])"),
        lambda match: "，".join(map(digits, match[1].split("-"))),
    ),
    (re.compile(r"(?<![\d.])(localhost|\d+(?:\.\d+){3}):(\d{2,5})(?!\d)"), lambda m: f"{m[1]}冒号{digits(m[2])}"),
    (re.compile(r"(?<![\d.])(\d+(?:\.\d+){3})/(?=\d{1,2}(?!\d))"), r"\1斜杠"),
    (
        re.compile(r"(?<![A-Za-z\d])[A-F\d]{2}(?::[A-F\d]{2}){5}(?![A-Za-z\d:])"),
        lambda match: digits(match[0].replace(":", "，")),
    ),
    (re.compile(r"(?<!\d)(\d{3,6})\*{2,}(\d{3,4})(?!\d)"), lambda match: f"{code(match[1])}星号{code(match[2])}"),
    (
        re.compile(r"(?<![\d+])\+(?!86)(\d{1,3}(?:[- ][(（]?\d{2,5}[)）]?){2,4})(?!\d)"),
        lambda match: "加" + telephone(match[1]),
    ),
    (re.compile(r"(?<![\d-])00\d\d(?:-\d+)+"), lambda match: telephone(match[0])),
    (
        re.compile(r"(?:^|(?<=[，。！？!,\s哈]))(?:6{3,}|5{3,}|23{2,})(?=$|[，。！？!,\s啊啦了])"),  # as in a chat
        lambda match: digits(match[0]),
    ),
    (
        re.compile(rf"(?<!\d)(?:19|20)\d\d(?=[级届款]|[{HAN}]{{0,4}}(?:奥运|亚运|世界杯|冬奥|残奥|世博|欧洲杯))"),
        lambda match: digits(match[0]),
    ),
    (re.compile(r"(?<![\d.])(2160|1440|1080|720|480|360)(?=[pPi](?![A-Za-z]))"), lambda match: digits(match[0])),
    (
        re.compile(r"(?<![A-Za-z.])([A-Z])\.(\d{3,})(?![\d.])"),
        lambda match: f"{match[1]}点{digits(match[2])}",
    ),
    (
        re.compile(r"(?<=[表图式])\s?(\d{1,2})[-–](\d{1,2})(?![\d-]|[篇名个人种张次位天年月日分份款条件小周倍])"),
        r"\1杠\2",
    ),
    (
        re.compile(r"(?<!\d)(?<!\d )(?:[（(]0\d{2,3}[）)]\s?|0\d{2,3}[- ])(?:\d{7,8}|\d{3,4}[- ]\d{4})(?!\d)"),
        lambda match: telephone(re.sub(r"[^\d]", "-", match[0].strip("(（"))),
    ),
    (
        re.compile(r"(?<!\d)(?<!\d )0\d{2,3}[- ]\d{3,4}[ -]\d{4}(?!\d)"),
        lambda match: telephone(match[0].replace(" ", "-")),
    ),
    (re.compile(r"(?<=转)(?:分机)?(\d{2,5})(?!\d)"), lambda match: digits(match[0])),
    (re.compile(r"(?<!\d)0\d{2,3}-\d{3,4}-\d{4}(?!\d)"), lambda match: telephone(match[0])),
    (re.compile(r"\+86[- ]?(?=1[3-9]\d)"), "加八六，"),
    (re.compile(r"(?<!\d)1[3-9]\d[- ]\d{4}[- ]\d{4}(?!\d)"), lambda match: telephone(match[0])),
    (re.compile(r"(?<!\d)[48]00[- ](?:\d{3}[- ]\d{4}|\d{4}[- ]\d{3}|\d{7})(?!\d)"), lambda match: telephone(match[0])),
    (
        re.compile(r"(?<!\d)\d{4}(?:[ -]\d{4}){3}(?: \d{3})?(?!\d)"),
        lambda match: "，".join(map(digits, re.findall(r"\d+", match[0]))),
    ),
    (
        re.compile(rf"((?:{CALLED})(?:[是为：:]|\s)*)(\d{{4}} \d{{4}})(?![\d-])"),
        lambda match: match[1] + telephone(match[2].replace(" ", "-")),
    ),
    (
        re.compile(rf"((?:{CALLED})(?:[是为：:]|\s)*)(\d{{4,8}}){ENDED}(?![年月日元块个人次分秒])"),
        lambda match: match[1] + (code(match[2]) if len(match[2]) < 7 else digits(match[2])),
    ),
    (
        re.compile(rf"((?:{NUMBERED})(?:[是为：:]|\s)*[A-Za-z]*-?)(\d+(?:-\d+)*){ENDED}"),
        lambda match: match[1] + "，".join(map(digits, match[2].split("-"))),
    ),
    (re.compile(r"(?<!\d)(\d)米(\d\d)(?![\d米厘分])"), lambda match: f"{match[1]}米{digits(match[2])}"),
    (re.compile(r"(?<![A-Za-z\d])[A-Za-z]+_\d+(?![A-Za-z\d])"), lambda match: digits(match[0].replace("_", "下划线"))),
    (
        re.compile(r"(?<![\d-])(\d{1,2})-(\d{1,2})-(\d{3,4})(?![\d-])"),
        lambda match: f"{match[1]}杠{match[2]}杠{digits(match[3])}",
    ),
    (
        re.compile(r"(?<![\d.-])(\d{3,4})-(\d{3,4})(?=室|号?房)"),
        lambda match: f"{digits(match[1])}到{digits(match[2])}",
    ),
    (re.compile(r"(?<![A-Za-z\d])([A-Z])(\d{1,3})[-~～–](?=\1\d)"), r"\1\2到"),
    (
        re.compile(r"(?<![\d.-])(\d{1,3})-(\d{3,4})(?=室|号?房)"),
        lambda match: f"{match[1]}杠{digits(match[2])}",
    ),
    (re.compile(r"(?<=[座楼层栋幢元])\d{3,4}(?![\d.,年元人个平米㎡万亿块%])"), lambda match: digits(match[0])),
    (
        re.compile(
            r"(?<![A-Za-z\d])(?!USD|RMB|CNY|EUR|HKD|JPY|GBP|VIP)([A-Z]{1,4})[ -]?(\d{3,4})"
            r"(?![\d.,:/%A-Za-z年月日个元万亿人名位张米度次])"
        ),
        lambda match: match[1] + digits(match[2]),
    ),
    (re.compile(r"(?<![A-Za-z\d])([A-Z]{2})(\d{3,4})(?=次?航班)"), lambda match: match[1] + digits(match[2])),
    (re.compile(r"(?:(?<=波音)|(?<=空客))A?\d{3}(?![\d-])"), lambda match: digits(match[0])),
    (
        re.compile(r"(?<![\d.])\d{3}(?=路(?!程|灯|段|口|费)|国道|省道|县道)|(?<=[国省县]道)\d{3}"),
        lambda m: digits(m[0]),
    ),
    (
        re.compile(
            r"(?<![\d.])(?:985|211|996|618|404|502|503|500(?=错误|报错))(?=高校|大学|院校|工程|工作制|大促|活动|购物节|错误|报错|页面)"
        ),
        lambda match: digits(match[0]),
    ),
    (
        re.compile(
            r"(?<![\d.])(\d{1,2})[·.](\d{1,2})(?=事件|事变|假期|小长假|长假|妇女节|劳动节|儿童节|建军节|国庆节|青年节|黄金周|国庆|大促|晚会|购物节|事故|惨案|地震)"
        ),
        lambda match: digits(match[1].replace("10", "十").replace("12", "十二") + match[2]),
    ),
    (re.compile(r"(?<![\d.])(\d{1,2})·(\d{1,2})(?!\d)"), lambda match: digits(match[1] + match[2])),
    (re.compile(rf"(?<![\d.])(\d{{3,5}})(?={ROOM})"), lambda match: digits(match[1])),
    (
        re.compile(r"((?:房间|房号|教室|会议室|宿舍|病房|包厢)[是为：:]?)(\d{3,5})(?![\d人个平米元])"),
        lambda match: match[1] + digits(match[2]),
    ),
    (
        re.compile(r"(?<![\dA-Za-z])([GDCZTKSYL])(\d{1,4})(?:/(\d{1,4}))?(?=次|列车|高铁|动车)"),
        lambda match: match[1] + _train(match[2]) + (f"、{_train(match[3])}" if match[3] else ""),
    ),
    (re.compile(rf"{ALONE}0\d+{ENDED}(?![年月日号点时分秒])"), lambda match: digits(match[0])),
    (re.compile(rf"{ALONE}(?!1[3-9]\d{{9}}(?!\d))\d{{10,}}(?:[Xx]\b)?{ENDED}"), lambda match: digits(match[0])),
]


def _part(number: str) -> str:
    """A part of the name of a standard: "5009.3" → "五零零九点三"."""
    return digits(number).replace(".", "点").replace("/", " ")


def _train(number: str) -> str:
    return digits(number) if len(number) == 1 else code(number)
