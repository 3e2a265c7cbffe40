-- Takes note whether a renewal follows a grant. Where none does, its end is an end like any other, and alerts that wait
-- for the renewal already are judged now. Where one does after all, the end of the grant waits for it again.
-- ARGV    user_id, grant_id, renews_at_ms (0: no renewal follows; of use only where the grant ends then)
-- Answers ok user_id, then the balances
-- Writes  accounts, grants, outbox (account, with the alerts, if there are any)
function operations.lapse(i)
  local a, id, renews_at = account_of(ARGV[i]), ARGV[i + 1], ARGV[i + 2] + 0
  local g = grant_of(a, id)
  local _, _, mark, group = match(g and terms_of(g).at_end or '', AT_END_PATTERN)
  if renews_at > 0 and mark == '!' and g.state == '-' and g.expires == renews_at then
    g.at_end = (gsub(g.at_end, '!', '@'))
    change_grant(a, g)
    change_account(a)
  elseif renews_at == 0 and mark == '@' then
    g.at_end = (gsub(g.at_end, '@', '!'))
    change_grant(a, g)
    change_account(a)
    if g.state == 'e' then
      renewed(a, group)
      local alerts = a.judged and alerts_of(a, 'account', 0) or ''
      if alerts ~= '' then record(a, 'account', 0, {}, now, join(settings_of(a), alerts)) end
    end
  end
  return format('ok %s', a.user) .. balances(a)
end
