"""The page's texts in Chinese, by their English. The one table of both languages.

A test holds it complete: every text of ``page.js`` and ``page.html``, of the families of reasons,
and of the folded sections is in it, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from usms_pipeline.contract import wording


class Said(str):
    """A text in English, with its ``chinese``."""

    chinese: str

    def __new__(cls, english: str, chinese: str) -> Said:
        """Return a text that is the English one."""
        made = super().__new__(cls, english)
        made.chinese = chinese
        return made


def said(text: str, **given: object) -> Said:
    """Return a text of the table in both languages, with its figures in place.

    Raises ``KeyError`` where the table lacks it.
    """
    chinese = {name: getattr(value, "chinese", value) for name, value in given.items()}
    return Said(text.format(**given), CHINESE[text].format(**chinese))


def listed(parts: Iterable[Said]) -> Said:
    """Return several texts with commas between them."""
    parts = list(parts)
    return Said(", ".join(parts), "，".join(part.chinese for part in parts))


def span(seconds: float | None) -> Said:
    """Return a time as ``wording.duration`` writes it; no line is broken in it."""
    text = wording.unbroken(wording.duration(seconds))
    return Said(text, re.sub(r"(?<=\u00a0)(s|min|h|d)\b", lambda unit: _UNITS[unit[0]], text))


_UNITS: Final = {"s": "秒", "min": "分钟", "h": "小时", "d": "天"}

CHINESE: Final = {
    # the bar
    "SMS delivery report": "短信送达报告",
    "What is shown": "显示范围",
    "Period": "时间段",
    "Filters": "筛选",
    "Filters that are set": "已选筛选",
    "Download CSV": "下载 CSV",
    "24 h": "24 小时",
    "{n} days": "{n} 天",
    "{n} hours": "{n} 小时",
    "hour": "1 小时",
    "country": "国家",
    "operator": "运营商",
    "all": "全部",
    "all others": "其他",
    "not known": "未知",
    "All messages": "全部短信",
    "Remove {name}": "取消 {name}",
    "{from} to {to}": "{from} 至 {to}",
    # the sentence
    "{n} message": "{n} 条",
    "{n} messages": "{n} 条",
    "from {from} to {to}": "{from} 至 {to} ",
    " for {names}": "（{names}）",
    "Of {messages} sent {when}{whom}": "{when}{whom}共发送 {messages}",
    "{begun}: too few to judge.": "{begun}：样本太少，无法判断。",
    "{begun}, no final status is in yet.": "{begun}，还没有收到最终状态。",
    "{begun}, we expect {rate} to be delivered in the end": "{begun}，预计最终送达率 {rate}",
    "{begun}, {rate} of those with a final status were delivered": (
        "{begun}，在已有最终状态的短信中送达率为 {rate}"
    ),
    "{told}. {more}": "{told}。{more}",
    "{told}, the same as in {than}. {more}": "{told}，与{than}持平。{more}",
    "{told}, {n} points less than in {than}. {more}": "{told}，比{than}低 {n} 个百分点。{more}",
    "{told}, {n} points more than in {than}. {more}": "{told}，比{than}高 {n} 个百分点。{more}",
    " Most extra failures: {name} (+{n}).": "失败增加最多的是 {name}（+{n}）。",
    "the {period} before": "前 {period}",
    "weeks": "各周之间",
    "spans of {period}": "相邻 {period}之间",
    "Only {messages} in {than}: too few to compare.": "{than}只有 {messages}，样本太少，无法对比。",
    "There is nothing from {than} to compare with.": "没有{than}的数据可对比。",
    "We do not compare single days; the alerts watch each hour.": (
        "单日不做环比判断；按小时的异常见告警。"
    ),
    "For this selection we did not compute whether that is unusual.": (
        "当前筛选不判断波动是否异常。"
    ),
    "There are too few days to tell whether that is unusual.": "天数太少，无法判断波动是否异常。",
    "It is normal for {spans} to differ this much.": "在{spans}的正常波动范围内。",
    "That is more than {spans} usually differ by.": "超出{spans}的正常波动。",
    # the tiles
    "nothing before to compare with": "没有可对比的数据",
    "≈ as in {than}": "≈ 与{than}持平",
    "{n} points on {than}": "较{than} {n} 个百分点",
    "; {spans} often differ this much": "；{spans}常有这样的差别",
    "; more than usual": "；超出正常波动",
    "target {rate}: missed": "目标 {rate}：未达标",
    "target {rate}: met": "目标 {rate}：已达标",
    "Delivery rate": "送达率",
    "of those with a final status; chance alone: {low}–{high}": (
        "按已有最终状态计算；随机误差范围 {low}–{high}"
    ),
    "so far {so}; at worst {worst}, at best {best} of all": (
        "目前 {so}；按全部短信计，最低 {worst}，最高 {best}"
    ),
    "expected, {low}–{high} (19 times in 20); so far {so}": (
        "预计值，{low}–{high}（95% 置信）；目前 {so}"
    ),
    "; no forecast for this selection": "；当前筛选不做预测",
    "Within {n} s": "{n} 秒内送达",
    "of all messages; people waiting for a code give up after that": (
        "占全部短信；等验证码的用户过了这个时间多半会放弃"
    ),
    "Still waiting": "等待回执",
    "{share} of all have no receipt yet": "{share} 的短信还没有回执",
    "no comparison for this selection": "当前筛选不做对比",
    "no comparison: {period} ago nothing was collected yet": "{period}前尚未开始采集，无法对比",
    "Not delivered": "未送达",
    "{share} of all: failed, rejected or expired": "占 {share}：失败、被拒或过期",
    "; they cost {costs}": "；费用 {costs}",
    "{title} over time, from {low} to {high}": "{title}走势，{low} 至 {high}",
    # alerts
    "Alerts": "告警",
    "✓ Nothing worse than usual in the last 72 hours.": "✓ 最近 72 小时没有异常。",
    "all messages": "全部短信",
    "sent {when}": "发送时间 {when}",
    "{share} of all messages, usually {usual}.": "占全部短信的 {share}，平时 {usual}。",
    "{share} failed ({affected} of {messages}), usually {usual}.": (
        "失败 {share}（{messages} 条中的 {affected} 条），平时 {usual}。"
    ),
    "{share} had no final status in time ({affected} of {messages}), usually {usual}.": (
        "{share} 未按时收到最终状态（{messages} 条中的 {affected} 条），平时 {usual}。"
    ),
    "About {n} extra failures.": "约多失败 {n} 条。",
    "About {n} extra late ones.": "约 {n} 条回执延迟或缺失。",
    "Mostly {reason}. {remedy}": "主要原因：{reason}。{remedy}",
    "Show only these messages": "只看这些短信",
    "and {n} more: usms alerts lists them.": "另有 {n} 条告警：用 usms alerts 查看。",
    # what changed
    "What changed": "变化在哪里",
    "Compare by": "对比维度",
    "Where messages are not delivered": "哪里未送达",
    "Sorted by extra failures: how many more than at the earlier rate. Grey: before. ": (
        "按失败增量排序：与之前的送达率相比多失败的条数。灰点：之前。"
    ),
    "{more} Sorted by how many were not delivered. ": "{more}按未送达条数排序。",
    "Line: the rate if none, to the rate if all, of those without a final status were delivered.": (
        "横线：未知状态的短信从全部失败到全部送达的范围。"
    ),
    "Line: the range that chance alone explains (19 times in 20).": (
        "横线：同等样本量的随机误差（95%）。"
    ),
    "No {column} has at least {n} messages with a final status.": (
        "没有任何{column}有 {n} 条已有最终状态的短信。"
    ),
    "{rate} now": "现在 {rate}",
    ", {rate} before": "，之前 {rate}",
    "Only {name}": "只看 {name}",
    "Scale from {low} to 100%": "刻度从 {low} 到 100%",
    "Rate": "送达率",
    "Before": "之前",
    "Messages": "条数",
    "Extra failures": "失败增量",
    "{n} more with less change": "变化较小的 {n} 项",
    "{n} with under {floor} messages": "不足 {floor} 条的 {n} 项",
    "Delivery by {column}": "按{column}的送达情况",
    "Not shown: {groups}.": "未显示：{groups}。",
    # over time
    "Over time": "走势",
    "Delivered, of the messages with a final status. Light: receipts are still outstanding; "
    "blocks: what we expect. Faint: too few messages to judge. Bars: messages sent. Shaded: an "
    "alert. Drag across hours to see only these.": (
        "已有最终状态的短信的送达率。浅色：回执还没到齐，色块为预计值。淡点：样本太少。柱：发送量。"
        "底纹：告警。用鼠标划选一段时间可单独查看。"
    ),
    "Nothing to draw: at no time are there {n} messages with a final status.": (
        "任何时段都不足 {n} 条已有最终状态的短信，无法绘图。"
    ),
    "{day}: {rate} expected, {low}–{high}": "{day}：预计 {rate}，{low}–{high}",
    "{name}: {rate} delivered of {messages} with a final status": (
        "{name}：已有最终状态的 {messages}中送达 {rate}"
    ),
    "; {n} waiting": "；{n} 条等待回执",
    "; too few to judge": "；样本太少",
    "before: {rate}": "之前：{rate}",
    "target: {rate}": "目标：{rate}",
    "Delivery rate over time, from {low} to {high}": "送达率走势，{low} 至 {high}",
    # reasons, hours, operators
    "Why messages are not delivered": "未送达原因",
    "No message has failed, been rejected or expired.": "没有失败、被拒或过期的短信。",
    "no reason given": "未说明原因",
    "Rarer reasons": "较少见的原因",
    "{whose}. ": "{whose}。",
    "{share} of messages, before {was}. ": "占全部短信 {share}，之前 {was}。",
    "Mostly: ": "主要：",
    ".": "。",
    "By hour and weekday": "按小时和星期",
    "Too few hours have at least {n} messages.": "达到 {n} 条的小时太少。",
    "Mon Tue Wed Thu Fri Sat Sun": "周一 周二 周三 周四 周五 周六 周日",
    "{rate} delivered of {messages}": "{messages}中送达 {rate}",
    "no messages": "没有短信",
    "Darker: more not delivered, from {low} to {high} of those with a final status. Pale grey: "
    "fewer than {n} messages. The latest {days} days, {zone}.": (
        "颜色越深未送达越多，占已有最终状态的 {low} 至 {high}。浅灰：不足 {n} 条。"
        "最近 {days} 天，{zone}。"
    ),
    "Not delivered by weekday and hour, from {low} to {high}": (
        "按星期和小时的未送达比例，{low} 至 {high}"
    ),
    "By operator and {column}": "运营商 × {column}",
    "Delivered, of the messages with a final status. Darker: fewer. A dot: too few messages to "
    "judge.": "已有最终状态的短信的送达率。颜色越深越低。圆点：样本太少。",
    # what is folded away
    "Is the data reliable?": "数据本身可靠吗？",
    "How fast do receipts arrive, and how complete are the figures?": "多快送达，多久数据齐全？",
    "Messages by status": "按状态的短信数",
    "What the figures mean": "指标含义",
    "No messages yet.": "还没有短信。",
    "Messages sent {days}, based on receipts collected until {at}.": (
        "{days} 发送的短信，按截至 {at} 采集的回执统计。"
    ),
    "Made {at} by usms-pipeline {version}. This file fetches nothing and holds no phone number.": (
        "{at} 由 usms-pipeline {version} 生成。本页不联网，不含手机号。"
    ),
    # the checks of the data
    "Checks of the data itself": "数据检查",
    "Check": "检查项",
    "State": "结论",
    "Found": "结果",
    "! review": "! 需关注",
    "✓ OK": "✓ 正常",
    "none": "无",
    "Worse than usual": "比平时差",
    "{n} alert": "{n} 条告警",
    "{n} alerts": "{n} 条告警",
    "The alerts above say which group, since when, and how many messages.": (
        "上方告警写明是哪一组、从何时起、影响多少条。"
    ),
    "Time zones": "时区",
    "can't be judged yet: too few receipts": "回执太少，还无法判断",
    "half of the delivered messages arrived within {span}": "已送达的短信有一半在 {span}内到达",
    "{found}; {messages} delivered before being sent": "{found}；{messages}的送达时间早于发送时间",
    "A time zone is probably wrong: check USMS_RECEIPT_TIMEZONE (of the service's receipt times) "
    "and USMS_SOURCE_TIMEZONE (of your table's times).": (
        "时区可能设错了：请检查 USMS_RECEIPT_TIMEZONE（回执时间的时区）和 "
        "USMS_SOURCE_TIMEZONE（源表时间的时区）。"
    ),
    "First asked too late": "首次查询过晚",
    "First polled after the cutoff, so a receipt may have existed earlier. Normal for messages "
    "sent long before the first run; otherwise, schedule runs more often.": (
        "首次查询时已过截止时间，之前可能有过回执。早在首次运行之前发送的短信属于正常情况；"
        "否则请提高运行频率。"
    ),
    "Polled in time, but closed without a final status": "查询及时，但到截止时间仍无最终状态",
    "Unknown status words": "不认识的状态值",
    "{messages}: {words}": "{messages}：{words}",
    "They count as waiting until the cutoff. A newer version may know these words.": (
        "截止时间之前按等待回执计。新版本可能已支持这些状态值。"
    ),
    "Receipts of phones that are not in your table": "号码不在源表里的回执",
    "{n} beside {messages} in your table, left out of the rates": (
        "{n} 条，不计入送达率；源表里有 {messages} 条"
    ),
    "Your table lists fewer recipients than were sent to: `usms check` shows how its rows are "
    "read.": "源表里的收件人比实际发送的少：用 `usms check` 查看源表是怎样读取的。",
    "Unusable session numbers": "不可用的会话号",
    "Blank in your table, or refused by the service; `usms quarantine list` shows the refused.": (
        "源表里为空，或被服务端拒绝；用 `usms quarantine list` 查看被拒绝的。"
    ),
    "Conflicting final statuses": "最终状态互相矛盾",
    "{messages}; the first counts": "{messages}；以先到的为准",
    "Source rows without a usable time": "没有可用时间的源表行",
    "Without a send time they are in no figure; `usms check` says more.": (
        "没有发送时间，不计入任何指标；详见 `usms check`。"
    ),
    "Source rows before USMS_START_DATE": "早于 USMS_START_DATE 的源表行",
    "{n}; in no figure": "{n} 行，不计入任何指标",
    "Source rows in the future": "发送时间在未来的源表行",
    "They enter the figures when their day comes; `usms check` says more.": (
        "到了当天才计入指标；详见 `usms check`。"
    ),
    "In quarantine": "隔离区",
    "{n} entry": "{n} 条记录",
    "{n} entries": "{n} 条记录",
    "Saved, but in no figure: see `usms quarantine list`, then replay or dismiss.": (
        "已保存，但不计入任何指标：用 `usms quarantine list` 查看，再重放或忽略。"
    ),
    # how fast, how complete
    "Time to delivery, by the receipts' own times: {spread}.": (
        "送达耗时（按回执里的时间）：{spread}。"
    ),
    "{share}% within {span}": "{span}内 {share}%",
    "Time to delivery: not known yet.": "送达耗时：暂时无法确定。",
    "From {n} messages of four weeks, by their age. Receipts in: the share of all receipts that "
    "ever come. Later delivered, later failed: shares of those still waiting; the others never "
    "get a receipt.": (
        "取自四周内的 {n} 条短信，按发送后经过的时间。已收回执：占最终能收到的回执的比例。"
        "之后送达、之后失败：占仍在等待的短信的比例；其余的一直没有回执。"
    ),
    "Age": "发送后",
    "Receipts in": "已收回执",
    "Later delivered": "之后送达",
    "Later failed": "之后失败",
    "Too few final statuses yet to show how complete the figures are.": (
        "有最终状态的短信太少，还看不出数据是否齐全。"
    ),
    # statuses
    "All messages by status": "全部短信，按状态",
    "Status": "状态",
    "Share": "占比",
    "Meaning": "含义",
    "Delivered": "已送达",
    "the carrier reports that the message reached the phone": "运营商回执：短信已到达手机",
    "Failed": "失败",
    "the carrier reports that the message did not reach the phone": "运营商回执：短信未到达手机",
    "Rejected": "被拒",
    "refused before it reached a carrier": "提交给运营商之前被拒绝",
    "Expired": "已过期",
    "the carrier could not deliver it before the message's validity ended": (
        "在短信有效期内，运营商未能送达"
    ),
    "Unknown": "未知",
    "not reported yet, or not reported within the cutoff (72 hours)": (
        "还没有回执，或到截止时间（72 小时）仍没有回执"
    ),
    "Pending": "等待中",
    "no receipt yet; still polled": "还没有回执，仍在查询",
    "Unrecognized": "无法识别",
    "the service sent a status word that this version does not know": (
        "服务端返回了本版本不认识的状态值"
    ),
    "Invalid": "无效",
    "no usable session number, or the service refuses it": "没有可用的会话号，或会话号被服务端拒绝",
    # what the figures mean
    "messages sent: the recipients in your table": "发送的条数，即源表里的收件人数",
    "Awaited": "等待回执",
    "waiting for a receipt: no final status, still polled": "还没有最终状态，仍在查询",
    "Awaited rate": "等待回执占比",
    "awaited / messages: how much of the group is still open": (
        "等待回执 / 条数：还有多少没有结果"
    ),
    "Receipt coverage": "回执覆盖率",
    "messages with a final status / messages": "已有最终状态的条数 / 条数",
    "delivered / messages with a final status": "已送达 / 已有最终状态的条数",
    "Delivery rate, interval low": "送达率置信区间下限",
    "lower end of the rate's 95 % Wilson interval; NULL while anything is open": (
        "送达率 95% Wilson 区间的下限；还有短信在等回执时为空"
    ),
    "Delivery rate, interval high": "送达率置信区间上限",
    "upper end of the rate's 95 % Wilson interval; NULL while anything is open": (
        "送达率 95% Wilson 区间的上限；还有短信在等回执时为空"
    ),
    "Delivery rate if rest failed": "最低送达率",
    "delivered / messages: the rate if none of those without a receipt were delivered": (
        "已送达 / 条数：没有回执的短信全部按未送达计算"
    ),
    "Delivery rate if rest arrived": "最高送达率",
    "1 - (failed + rejected + expired) / messages: the rate if all of those were delivered": (
        "1 −（失败 + 被拒 + 过期）/ 条数：没有回执的短信全部按送达计算"
    ),
    "Latency p50": "送达耗时 P50",
    "half of the delivered messages arrived within this; receipts dated before the send time are "
    "ignored; NULL while open messages could make it more than a quarter longer": (
        "已送达的短信有一半在此时间内到达；早于发送时间的回执不计；"
        "如果等待中的短信可能使它变长四分之一以上，则为空"
    ),
    "Latency p90": "送达耗时 P90",
    "90 % of the delivered messages arrived within this; NULL as above": (
        "已送达的短信有 90% 在此时间内到达；为空的条件同上"
    ),
    "Latency p99": "送达耗时 P99",
    "99 % of the delivered messages arrived within this; NULL as above": (
        "已送达的短信有 99% 在此时间内到达；为空的条件同上"
    ),
    "no final status, and first polled after the cutoff: a receipt may have existed earlier": (
        "没有最终状态，且首次查询时已过截止时间：之前可能有过回执"
    ),
    "Settings that the figures depend on": "影响指标的设置",
    "Setting": "设置项",
    "Value": "值",
    # reasons.py
    "Number not in use": "空号或无效号码",
    "The number is mistyped, no longer in use, or never existed.": (
        "号码填错、已停用，或不是有效号码。"
    ),
    "Yours to fix": "需要你处理",
    "Check numbers when they are entered; stop sending to those that fail again.": (
        "录入时校验号码；再次失败的不要继续发送。"
    ),
    "Blocked": "被拦截",
    "The recipient, the platform or the carrier blocks your messages.": (
        "用户、平台或运营商拦截了你的短信。"
    ),
    "Stop sending to these recipients; if many are new, ask the provider which list they are on.": (
        "剔除这些号码；如果突然增多，请向服务商确认命中了哪个黑名单。"
    ),
    "Content or signature": "内容或签名",
    "The text was refused before it was sent.": "内容在下发前被拒绝。",
    "Register the signature and template, and send exactly what was approved.": (
        "报备签名和模板，严格按审核通过的内容发送。"
    ),
    "Carrier or network": "运营商或网络",
    "The route to the phone is down or overloaded.": "到手机的通道故障或拥塞。",
    "For the carrier and the provider to fix": "由运营商和服务商处理",
    "Send again later or over another route; open a ticket that names the hours and the carrier.": (
        "稍后重发或换通道；带上时段和运营商提工单。"
    ),
    "Phone off or out of reach": "关机或不在服务区",
    "The phone was off, full or out of coverage for as long as the carrier tried.": (
        "在运营商重试期间，手机关机、内存满或不在服务区。"
    ),
    "Nobody can fix it": "无需处理",
    "Offer another channel, such as a call; do not send again and again.": (
        "提供语音等其他方式；不要短时间内连续重发。"
    ),
    "Other or no reason given": "其他或未说明",
    "The carrier gave no reason, or one that is not in the table of codes.": (
        "运营商没有给出原因，或原因码不在对照表中。"
    ),
    "The provider knows": "需问服务商",
    "Ask the provider what the code means.": "请向服务商确认该状态码的含义。",
}
