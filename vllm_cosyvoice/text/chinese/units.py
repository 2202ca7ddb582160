"""Reads units of measurement in Chinese: "5kWh" → "5千瓦时", "35μg/m³" → "每立方米35微克"."""

import re

from vllm_cosyvoice.text.chinese.patterns import AMOUNT, HAN
from vllm_cosyvoice.text.rules import Rule
from vllm_cosyvoice.text.unit_signs import SUPERSCRIPTS, UNIT_SIGN

# After a number; wetext reads the others.
UNITS = {
    "mmol/L": "毫摩尔每升", "μmol/L": "微摩尔每升", "umol/L": "微摩尔每升", "nmol/L": "纳摩尔每升",
    "mg/dL": "毫克每分升", "mg/L": "毫克每升", "g/L": "克每升", "U/L": "单位每升", "IU/L": "国际单位每升",
    "ng/mL": "纳克每毫升", "m/s²": "米每二次方秒", "mmHg": "毫米汞柱", "mmol": "毫摩尔", "mol": "摩尔", "μg": "微克",
    "ug": "微克", "g": "克", "t": "吨", "μm": "微米", "nm": "纳米", "kW·h": "千瓦时", "kWh": "千瓦时", "kW": "千瓦",
    "MW": "兆瓦", "W": "瓦", "kV": "千伏", "V": "伏", "mAh": "毫安时", "mA": "毫安", "mV": "毫伏", "μA": "微安",
    "μF": "微法", "pF": "皮法", "ms": "毫秒", "μs": "微秒", "ns": "纳秒", "mΩ": "毫欧", "MΩ": "兆欧", "kΩ": "千欧",
    "Ω": "欧姆", "N·m": "牛米", "N": "牛", "J": "焦耳", "GHz": "吉赫兹", "MHz": "兆赫兹", "kHz": "千赫兹",
    "Hz": "赫兹", "dB": "分贝", "kPa": "千帕", "MPa": "兆帕", "hPa": "百帕", "Pa": "帕", "kcal": "千卡", "kJ": "千焦",
    "rpm": "转每分钟", "bpm": "次每分钟", "fps": "帧每秒", "Mbps": "兆比特每秒", "mL": "毫升", "L": "升", "l": "升",
    "h": "小时", "min": "分钟",
}  # fmt: skip
# The parts of composed units. Those of the second line mean something else alone: "12A", "3d".
PARTS = UNITS | {
    "km": "公里", "m": "米", "dm": "分米", "cm": "厘米", "mm": "毫米", "kg": "千克", "mg": "毫克", "ml": "毫升",
    "dL": "分升", "s": "秒", "d": "天", "K": "开", "℃": "摄氏度", "KB": "KB", "MB": "MB", "GB": "GB", "TB": "TB",
}  # fmt: skip
SPOKEN = PARTS | {"分": "分钟", "秒钟": "秒"}
POWERS = {"²": "平方", "³": "立方", "": ""}


def _one_of(units: dict[str, str]) -> str:
    return "|".join(re.escape(unit) for unit in sorted(units, key=len, reverse=True))


# What things are counted, sold or measured by, after a slash.
PER = (
    "分钟?|小时|秒钟?|天|日|周|月|季度?|年|晚|[组班人户台瓶盒件箱包袋支片粒份位次节亩股桶张本间套车辆只条碗杯盘斤吨克米升度]"
    "|公斤|千克|公里|平方公里|平方米|平米|立方米|毫升|千瓦时|盎司|课时|人次"
)
DENOMINATOR = rf"(?:\d*(?:{_one_of(PARTS)})[²³]?(?![A-Za-z²³])|(?:{PER})(?![{HAN}])|(?:{PER})(?=[的起以左和与，]))"
FACTOR = re.compile(r"(\d*)([^\d²³]+)([²³]?)")
HEMISPHERES = {"N": "北纬", "S": "南纬", "E": "东经", "W": "西经"}

UNIT_SIGN_RULES: list[Rule] = [  # one way to write each unit
    UNIT_SIGN,
    (re.compile(r"/[(（]([A-Za-zμ²³℃]+(?:·[A-Za-z²³℃]+)+)[)）]"), r"/\1"),  # W/(m·K)
    (re.compile(r"(?<=/)s\^?2(?!\d)"), "s²"),
    (
        re.compile(
            rf"(?<![A-Za-z\d.])([NSEW]\s?)?({AMOUNT})\s?°(?![CF])\s?(?:({AMOUNT})\s?[′'’])?(?:\s?({AMOUNT})\s?[″\"”])?"
            r"(\s?[NSEW](?![A-Za-z]))?"
        ),
        lambda match: _angle(*match.groups(default="")),
    ),
    (
        re.compile(r"(?<=[\d/])(\s?[kcdmμ]?m)\^?([23])(?![\d.A-Za-z])"),
        lambda match: match[1] + match[2].translate(SUPERSCRIPTS),
    ),
]
BARE_UNIT_RULES: list[Rule] = [  # units without a number, or after a power of ten
    (
        re.compile(
            rf"(?:(?<=次方)\s?|(?<![A-Za-zμ\d/.万亿-])(?<!\d\s)(?=m/|[^/]{{2}}))((?:{_one_of(PARTS)})[²³]?)(/{DENOMINATOR}(?:[/·]{DENOMINATOR})*)"
        ),
        lambda match: _factor(match[1]) + _per(match[2]),
    ),
    (re.compile(rf"(?<=次方)/{DENOMINATOR}(?:[/·]{DENOMINATOR})*"), lambda match: _per(match[0])),
    (re.compile(rf"(?<=次方)\s?({_one_of(PARTS)})([²³]?)(?![A-Za-z/])"), lambda match: _factor(match[1] + match[2])),
]
UNIT_RULES: list[Rule] = [
    (re.compile(r"(?<=\d)′"), "分"),
    (re.compile(r"(?<=\d)″"), "秒"),
    (re.compile(rf"({AMOUNT})‰"), r"千分之\1"),
    (re.compile(r"(?<=\d)(k?[VW])/(?=\d+(?:V|A|Hz)(?![A-Za-z]))"), lambda match: UNITS[match[1]] + "，"),  # 220V/50Hz
    (
        re.compile(rf"(?:(?<=[\d万亿])|(?<=次方))\s?({_one_of(UNITS)})(?![A-Za-z/²³·])(?!(?<=[2-5]g)[{HAN}])"),
        lambda match: UNITS[match[1]],
    ),
    (
        re.compile(
            rf"(?<![A-Za-z\d.之/])({AMOUNT}(?:[~到]{AMOUNT})?[多余]?[万亿]?)\s?((?:{_one_of(PARTS)}|[{HAN}]{{1,3}}|%)[²³]?)"
            rf"((?:[/·]{DENOMINATOR})+)"
        ),
        lambda match: _per(match[3]) + match[1] + _factor(match[2]),
    ),
]


def _angle(before: str, degrees: str, minutes: str, seconds: str, after: str) -> str:
    hemisphere = HEMISPHERES.get((before or after).strip(), "")
    return f"{hemisphere}{degrees}度" + (f"{minutes}分" if minutes else "") + (f"{seconds}秒" if seconds else "")


def _per(denominators: str) -> str:
    return "".join(f"每{_factor(part)}" for part in re.split("[/·]", denominators) if part)


def _factor(written: str) -> str:
    """One factor of a unit in words: "m²" → "平方米"; unchanged if unknown."""
    match = FACTOR.fullmatch(written)
    return f"{match[1]}{POWERS[match[3]]}{SPOKEN.get(match[2], match[2])}" if match else written
